//! `jwt verify`: the checks of the `jwt` plugin's signatures, for test vectors and for people with a token that is
//! refused.
//!
//! Owns the reading of lines and what is printed. Never judges by itself.

use std::io::{BufRead, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::plugin::jwt::{Verdict, judge};

/// Longest line that is read: a large set of keys and a large token.
const LINE_MAX: usize = 4 << 20;

/// A line: a key (or a set of keys) in JSON, and a token in compact form.
#[derive(Deserialize)]
struct Question<'a> {
    #[serde(borrow)]
    key: &'a RawValue,
    token: String,
}

/// Answers each line of standard input with one of standard output: `ok`, `no`, or `unsupported`. A line that cannot be
/// read is `no`, is said on standard error, and makes the exit code 1.
pub fn verify() -> Result<ExitCode> {
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    answer(input, &mut output)
}

fn answer(input: impl BufRead, output: &mut impl Write) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for (number, line) in input.split(b'\n').enumerate() {
        let line = line.context("standard input")?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let word = match read(&line) {
            Ok(question) => match judge(question.key.get().as_bytes(), question.token.as_bytes()) {
                Verdict::Good => "ok",
                Verdict::Bad => "no",
                Verdict::Unsupported => "unsupported",
            },
            Err(wrong) => {
                eprintln!("line {}: {wrong}", number + 1);
                code = ExitCode::FAILURE;
                "no"
            }
        };
        // A reader that closes early is no error.
        if writeln!(output, "{word}").is_err() {
            break;
        }
    }
    Ok(code)
}

fn read(line: &[u8]) -> Result<Question<'_>, String> {
    if line.len() > LINE_MAX {
        return Err(format!("longer than {LINE_MAX} bytes"));
    }
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_each_line() {
        let lines = concat!(
            r#"{"key":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},"token":"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"}"#,
            "\n\n",
            r#"{"key":{"kty":"oct","k":""},"token":"a.b.c"}"#,
            "\n",
            r#"{"key":{"kty":"new"},"token":"e30.e30."}"#,
            "\nnonsense\n",
        );
        let mut said = Vec::new();
        let code = answer(lines.as_bytes(), &mut said).expect("readable");
        assert_eq!(String::from_utf8_lossy(&said), "ok\nno\nno\nno\n");
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    }
}
