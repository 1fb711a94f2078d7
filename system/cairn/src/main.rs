//! The one binary of a node: each role as a subcommand, and what an operator types.
//!
//! Roles never return but on a signal. The operator's commands end with a message that names the cause and the next
//! step. Nothing is decided here: this crate starts what the others are.

mod appliance;
mod cli;
mod lifecycle;
mod logging;
mod maintenance;
mod operator;
mod roles;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn: {error:#}");
            ExitCode::FAILURE
        }
    }
}
