//! The image-builder program: `cargo up`, `cargo iso` and the single steps behind them.
//!
//! Only reads its arguments and calls the library.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use image_builder::stage::say;
use image_builder::{Paths, Stages, guests, host, iso, root_tree};

/// Builds Cairn's image, and runs it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the host packages that are missing
    Setup,
    /// Build the appliance's userland as a folder, target/image/root
    Root,
    /// Build the guests' disk images, target/image/guests
    Guests {
        /// Only the tiny one
        #[arg(long)]
        tiny: bool,
    },
    /// Build target/image/cairn.iso
    Iso {
        /// This binary instead of compiling the workspace's
        #[arg(long)]
        cairn: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "image-builder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let paths = Paths::find()?;
    build(&paths, |stages| match arguments.command {
        Command::Setup => Ok(()),
        Command::Root => {
            let tree = root_tree::build(stages)?;
            say(&format!("{}", tree.display()));
            Ok(())
        }
        Command::Guests { tiny } => {
            say(&format!("{}", guests::tiny::build(stages)?.display()));
            if !tiny {
                say(&format!("{}", guests::debian::build(stages)?.display()));
            }
            Ok(())
        }
        Command::Iso { cairn } => {
            let cairn = match cairn {
                Some(binary) => binary,
                None => iso::compile(stages)?,
            };
            say(&format!("{}", iso::build(stages, &cairn)?.display()));
            Ok(())
        }
    })
}

/// Runs stages and prints the table of what each took, also when one failed.
fn build(paths: &Paths, work: impl FnOnce(&mut Stages) -> Result<()>) -> Result<()> {
    let mut stages = Stages::start(paths)?;
    let result = host::setup(&mut stages).and_then(|()| work(&mut stages));
    say(&stages.summary());
    result
}
