//! The `tradewind` binary: picks the allocator and hands over to the commands.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tradewind::cli::main()
}
