//! The image-builder program: `cargo up`, `cargo iso` and the single steps behind them.
//!
//! Only reads its arguments and calls the library.

use anyhow::Result;
use clap::{Parser, Subcommand};
use image_builder::stage::say;
use image_builder::{Paths, Stages, guests, host, root_tree};

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
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
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
    })
}

/// Runs stages and prints the table of what each took, also when one failed.
fn build(paths: &Paths, work: impl FnOnce(&mut Stages) -> Result<()>) -> Result<()> {
    let mut stages = Stages::start(paths)?;
    let result = host::setup(&mut stages).and_then(|()| work(&mut stages));
    say(&stages.summary());
    result
}
