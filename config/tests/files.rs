//! Loading from the file system: one file, a folder, several paths, and what cannot be read.

mod catalog;

use std::path::{Path, PathBuf};

use catalog::CATALOG;
use portcullis_config::{Pem, load, load_paths};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[test]
fn a_folder_is_one_configuration_of_its_visible_files() {
    let config = load(data("split"), &CATALOG).expect("a valid folder").config;
    let names: Vec<_> =
        config.sources.iter().map(|one| one.name.rsplit('/').next().unwrap_or_default()).collect();
    assert_eq!(names, ["10-services.yaml", "20-upstreams.yml", "30-routes.json"]);
    assert_eq!((config.services.len(), config.upstreams.len(), config.routes.len()), (1, 1, 1));
    let certificate = &config.certificates[0];
    assert_eq!(certificate.cert, Pem::File(data("split").join("certs/c.pem")));
    assert_eq!(certificate.key, Pem::File("/etc/c.key".into()));
}

#[test]
fn files_can_be_named_one_by_one() {
    let paths = [data("split/10-services.yaml"), data("split/20-upstreams.yml")];
    let config = load_paths(&paths, &CATALOG).expect("valid files").config;
    assert_eq!((config.services.len(), config.routes.len()), (1, 0));
}

#[test]
fn what_cannot_be_read_is_said_all_at_once() {
    let found = load_paths(&[data("no-such-file.yaml"), data("snapshots-of-nothing")], &CATALOG)
        .expect_err("no files");
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|one| one.message.starts_with("cannot be read: ")), "{found:?}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let found = load(folder, &CATALOG).expect_err("no configuration in there");
    assert_eq!(found[0].message, "cannot be read: the folder has no .yaml, .yml or .json file");
    let found = load("/dev/zero", &CATALOG).expect_err("endless");
    assert!(found[0].message.contains("longer than"), "{found:?}");
}
