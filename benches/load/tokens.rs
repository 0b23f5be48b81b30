//! The tokens of the load run, and the wrk script that sends them in turn.
//!
//! 256 of them, so that a gateway which remembers checked tokens has to hold more than one, as it would
//! with many users, and one that does not pays a signature check for each request.

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tokens sent in turn.
pub const COUNT: usize = 256;
/// Their issuer, by which Kong's `jwt` plugin finds the key.
pub const ISSUER: &str = "load";
/// They outlast any run.
const LIFETIME_SECONDS: u64 = 24 * 3600;

/// Signs the tokens with an RSA key.
pub fn make(private_key: &Path) -> Result<Vec<String>> {
    let key = EncodingKey::from_rsa_pem(&std::fs::read(private_key)?).context("the token key")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = |n: usize| {
        json!({
            "iss": ISSUER,
            "sub": format!("user-{n}"),
            "exp": now + LIFETIME_SECONDS,
            "nbf": now.saturating_sub(60),
            "scope": "read write",
        })
    };
    (0..COUNT).map(|n| Ok(encode(&Header::new(Algorithm::RS256), &claims(n), &key)?)).collect()
}

/// The Lua that makes wrk send them in turn; requests are formatted once, before the run.
pub fn script(tokens: &[String], path: &str, headers: &[(&str, &str)]) -> String {
    let extra: String =
        headers.iter().map(|(name, value)| format!("h[\"{name}\"] = \"{value}\"\n")).collect();
    let list: String = tokens.iter().map(|t| format!("\"{t}\",\n")).collect();
    format!(
        "local tokens = {{\n{list}}}\nlocal requests = {{}}\nlocal at = 0\n\
         function init(args)\nfor i, t in ipairs(tokens) do\nlocal h = {{}}\n\
         h[\"Authorization\"] = \"Bearer \" .. t\n{extra}\
         requests[i] = wrk.format(\"GET\", \"{path}\", h)\nend\nend\n\
         function request()\nat = at % #requests + 1\nreturn requests[at]\nend\n"
    )
}
