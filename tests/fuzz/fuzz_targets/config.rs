//! Configuration: any text gives a model or errors that can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_config::{EmptyCatalog, load_str};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(errors) = load_str("fuzz.yaml", text, &EmptyCatalog) {
        assert!(!errors.is_empty(), "a failure says why");
        errors.iter().for_each(|error| assert!(!error.to_string().is_empty()));
    }
});
