//! `cargo xtask schema`: writes `config/schema.json` for editors, from the tables that drive validation.
//!
//! The built gateway prints it, since only the gateway knows its plugins. With `--check` nothing is
//! written and a difference is an error.

use crate::{process, run};
use anyhow::{Context, Result, bail};

/// Where editors and the reference find it.
const PATH: &str = "config/schema.json";

#[derive(clap::Args)]
pub struct Options {
    /// Compare with the committed file instead of writing it
    #[arg(long)]
    pub check: bool,
    /// Profile to build the gateway with; all print the same
    #[arg(long, default_value = "dev")]
    pub profile: String,
}

pub fn run(options: &Options) -> Result<()> {
    let binary = run::build(&options.profile)?;
    let program = binary.to_str().context("the path of the binary is not UTF-8")?;
    let mut schema = process::output(program, ["schema"], &process::root())?;
    serde_json::from_str::<serde_json::Value>(&schema).context("`portcullis schema` printed no JSON")?;
    if !schema.ends_with('\n') {
        schema.push('\n');
    }
    let path = process::root().join(PATH);
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    match (committed == schema, options.check) {
        (true, _) => println!("{PATH} is current"),
        (false, true) => bail!("{PATH} is stale: run `cargo xtask schema` and commit it"),
        (false, false) => {
            std::fs::write(&path, schema)?;
            println!("{PATH} written");
        }
    }
    Ok(())
}
