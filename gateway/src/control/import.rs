//! `portcullis import`: another gateway's configuration in our own words.
//!
//! Owns what the command prints. The translation is the configuration crate's; every finding of `check` stands in the
//! output as a comment where it belongs.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use portcullis_config::{Diagnostic, Format, Severity};

use super::cli::ForeignFormat;
use super::commands::{compile_findings, print};
use crate::snapshot::GatewayCatalog;

/// Prints what the file means; complaints go to standard error when it cannot be used.
pub fn import(file: &Path, from: Option<ForeignFormat>) -> Result<ExitCode> {
    let from = from.map(|format| match format {
        ForeignFormat::Kong => Format::Kong,
        ForeignFormat::Traefik => Format::Traefik,
    });
    let imported = match portcullis_config::import(file, &GatewayCatalog, from) {
        Ok(imported) => imported,
        Err(findings) => return Ok(refuse(&findings)),
    };
    let mut notes = imported.loaded.warnings.clone();
    notes.extend(compile_findings(Arc::new(imported.loaded.config.clone())));
    if notes.iter().any(|note| note.severity == Severity::Error) {
        return Ok(refuse(&notes));
    }
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    print(&format!("# Made by `portcullis import` from {name}.\n{}", imported.to_yaml(&notes)));
    Ok(ExitCode::SUCCESS)
}

fn refuse(findings: &[Diagnostic]) -> ExitCode {
    for finding in findings {
        eprintln!("{finding}\n");
    }
    ExitCode::FAILURE
}
