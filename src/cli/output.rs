//! What commands print: tables for people, JSON and YAML for programs.

use std::io::Write;

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use super::failure::Failure;

/// Prints a line to standard output; a reader that has gone away (`… | head`) ends the process.
macro_rules! say {
    ($($what:tt)*) => {
        $crate::cli::output::line(format_args!($($what)*))
    };
}
pub(crate) use say;

/// See [`say`].
pub(crate) fn line(text: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) else { return };
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(BROKEN_PIPE);
    }
    eprintln!("error: standard output cannot be written: {error}");
    std::process::exit(1);
}

/// How a program that a broken pipe ended is seen by a shell: 128 + SIGPIPE.
const BROKEN_PIPE: i32 = 141;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// One JSON value.
    Json,
    /// One YAML document.
    Yaml,
}

/// Columns with a heading, aligned, without lines.
pub(crate) fn table(heading: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading.to_vec());
    for row in rows {
        table.add_row(row);
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Prints a value as asked; `table` makes the table only when it is wanted.
pub(crate) fn print(
    format: Format,
    value: &Value,
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table => say!("{}", table()),
        Format::Json => say!("{value:#}"),
        Format::Yaml => {
            let text = serde_saphyr::to_string(value)
                .map_err(|error| Failure::failed(format!("cannot print YAML: {error}")))?;
            say!("{}", text.trim_end());
        }
    }
    Ok(())
}
