//! The witness's command line: serve, and show the code by which a cloud is told of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use cairn_witness::house::House;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// A witness for clouds of two nodes: it votes, so that either may be lost.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// Its folder: its key, its secret, and what it keeps of each cloud. It belongs on a disk that lasts.
    #[arg(long, default_value = "/var/lib/cairn-witness", global = true)]
    folder: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves clouds, until it is stopped.
    Serve {
        /// Where clouds reach it.
        #[arg(long, default_value = "[::]:4600")]
        listen: SocketAddr,
    },
    /// Shows the code that `cairn witness add ADDRESS CODE` wants on a node of the cloud.
    Code {
        /// Makes a new one first: the last one lets in no more clouds. Those that are served go on.
        #[arg(long)]
        renew: bool,
    },
}

#[allow(clippy::print_stdout, reason = "the command's answer")]
fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Command::Code { renew } => {
            println!("{}", House::open(&cli.folder)?.code(renew)?.reveal());
            Ok(())
        }
        Command::Serve { listen } => {
            let filter = EnvFilter::try_from_env("CAIRN_LOG");
            let filter = filter.unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
            let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
            log.with_ansi(false).init();
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            runtime.block_on(cairn_witness::serve(&cli.folder, listen))
        }
    }
}
