//! What commands print: tables for people, JSON and YAML for programs.

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use super::failure::Failure;

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
        Format::Table => println!("{}", table()),
        Format::Json => println!("{value:#}"),
        Format::Yaml => {
            let text = serde_saphyr::to_string(value)
                .map_err(|error| Failure::failed(format!("cannot print YAML: {error}")))?;
            print!("{text}");
        }
    }
    Ok(())
}
