//! The binary `pype`.

fn main() -> std::process::ExitCode {
    pype::cli::main()
}
