//! `users` and `users_file`: lines of `htpasswd`.
//!
//! Owns the reading of such lines. Never repeats one: a line holds a hash.

use std::path::Path;

use portcullis_config::{Fault, Fields};

use crate::plugin::password::{Password, Users};

/// Largest file, in bytes.
const FILE_MAX: u64 = 64 << 20;

/// The plugin's own users; `None` where it has no such list.
pub fn read(fields: &Fields<'_>) -> Option<Users<()>> {
    let (lines, file) = (fields.strings("users"), fields.optional_string("users_file"));
    if lines.is_empty() && file.is_none() {
        return None;
    }
    let mut users = Users::default();
    for (number, line) in lines.iter().enumerate() {
        if let Err(wrong) = add(&mut users, line) {
            fields.error("users", Fault::new(format!("user {}: {wrong}", number + 1)).hide_line());
        }
    }
    if let Some(file) = &file {
        match read_file(Path::new(file)) {
            Err(wrong) => fields.error("users_file", Fault::new(format!("{file}: {wrong}"))),
            Ok(text) => {
                for (number, line) in text.lines().enumerate() {
                    let line = line.trim();
                    if line.is_empty() || line.starts_with('#') {
                        continue;
                    }
                    if let Err(wrong) = add(&mut users, line) {
                        fields
                            .error("users_file", Fault::new(format!("{file}, line {}: {wrong}", number + 1)));
                    }
                }
            }
        }
    }
    Some(users)
}

fn read_file(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_MAX {
        return Err(format!("it is larger than {FILE_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

fn add(users: &mut Users<()>, line: &str) -> Result<(), String> {
    let (name, hash) = line.split_once(':').ok_or("it is not `name:hash`")?;
    // Names are sent in fields.
    if name.is_empty()
        || !name.bytes().all(|byte| matches!(byte, b' '..=b'~' | 0x80..))
        || name.trim() != name
    {
        return Err("the name is empty, or cannot stand in a header field".into());
    }
    let password = Password::read_hash(hash)?;
    match users.insert(name.to_owned(), password, ()) {
        true => Ok(()),
        false => Err(format!("the user {name:?} is there already")),
    }
}
