//! Hashes of other programs, and what is no hash. The hashes are of openssl, of libxcrypt, and from the tests of the
//! reference implementation of Argon2.

use super::*;

/// A hash, the password that it is of.
const HASHES: &[(&str, &str)] = &[
    ("$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/", "secret"),
    ("$apr1$x$tMwYqBfQwi3FYAr0aJc8M/", ""),
    ("$apr1$abcdefgh$OfkUMneMP.xEgrYf8VYmr.", "a much longer password than sixteen bytes, really"),
    ("$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1", "secret"),
    ("$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.", "secret"),
    (
        "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.",
        "secret",
    ),
    ("$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW", "secret"),
    ("$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW", "secret"),
    ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password"),
    ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret"),
];

#[test]
fn hashes_of_other_programs() {
    for (hash, right) in HASHES {
        let password = Password::read_hash(hash).unwrap_or_else(|error| panic!("{hash}: {error}"));
        assert!(password.is(right.as_bytes()), "{hash}");
        assert_eq!(password.is_slow(), !hash.starts_with("{SHA}"), "{hash}");
        let wrong = [format!("{right}x"), right.to_uppercase() + "-", (*hash).to_owned(), "x".repeat(5000)];
        for wrong in wrong {
            assert!(!password.is(wrong.as_bytes()), "{hash} {wrong}");
        }
        assert!(!format!("{password:?}").contains(&hash[8..]), "it is not to be shown");
    }
}

#[test]
fn what_begins_like_a_hash_must_be_one() {
    for (text, said) in [
        ("$2b$04$short", "no whole bcrypt"),
        ("$2b$31$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW", "cost of 31"),
        ("$argon2id$", "no whole Argon2"),
        (
            "$argon2id$v=19$m=9000000,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "more than",
        ),
        ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ", "no whole Argon2"),
        ("$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ", "no whole MD5"),
        ("$1$abcdefghi$cHJi5PXp/ki/ktXzqlk6I1", "no whole MD5"),
        ("$5$abc", "no whole SHA-crypt"),
        ("$6$rounds=99999999$abc$x", "rounds"),
        ("{SHA}x", "20 bytes"),
    ] {
        let error = Password::read(text).err().unwrap_or_else(|| panic!("{text} was taken"));
        assert!(error.contains(said), "{text}: {error}");
    }
    for plain in ["secret", "", "$", "$7$x", "{SSHA}x"] {
        assert!(Password::read(plain).is_ok_and(|password| password.is(plain.as_bytes())), "{plain}");
        assert!(Password::read_hash(plain).is_err(), "{plain}");
    }
}

#[test]
fn unknown_users_are_compared_with_the_slow_hash_that_others_have() {
    let mut users = Users::default();
    assert!(users.insert("ann".into(), Password::read("plain").expect("a password"), 1));
    assert!(!users.has_slow() && users.find(b"eve").who.is_none());
    assert!(users.insert("ben".into(), Password::read(HASHES[0].0).expect("a hash"), 2));
    assert!(users.has_slow() && users.find(b"eve").password.is_slow());
    assert!(!users.insert("ben".into(), Password::read("x").expect("a password"), 3), "the name is taken");
    assert_eq!(users.find(b"ann").who, Some(&1));
    assert!(users.find(b"\xff").who.is_none());
}

#[test]
fn passwords_are_compared_whole() {
    for (known, given, expected) in [
        ("secret", "secret", true),
        ("secret", "secre", false),
        ("secret", "secretsecret", false),
        ("secret", "", false),
        ("", "", true),
        ("", "\0", false),
    ] {
        assert_eq!(same(known.as_bytes(), given.as_bytes()), expected, "{known:?} {given:?}");
    }
}
