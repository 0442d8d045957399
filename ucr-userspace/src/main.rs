//! The `ucr` program. All that it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ucr::cli::main()
}
