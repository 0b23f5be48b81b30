//! Tests of [`Head`]: lookup, editing, and what its invariants promise.

use super::*;
use proptest::prelude::*;

fn lines(head: &Head) -> String {
    let mut text = Vec::new();
    head.write_lines(|lines| text.extend_from_slice(lines));
    String::from_utf8(text).unwrap()
}

fn head(fields: &[(&str, &str)]) -> Head {
    let mut head = Head::new();
    for (name, value) in fields {
        head.append(name, value);
    }
    head
}

#[test]
fn names_compare_without_case_rfc9110_5_1() {
    let head = head(&[("Host", "a"), ("x-one", "1"), ("X-ONE", "2"), ("Accept", "*/*")]);
    assert_eq!(head.len(), 4);
    assert_eq!(head.get("HOST"), Some(&b"a"[..]));
    assert_eq!(head.get_known(Known::Host), Some(&b"a"[..]));
    assert_eq!(head.get("X-One"), Some(&b"1"[..]));
    assert_eq!(head.get_all("x-One").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(head.get("x-two"), None);
    assert_eq!(head.count_known(Known::Accept), 1);
    assert_eq!(head.count_known(Known::Cookie), 0);
    assert!(head.contains("accept") && !head.contains("accept-encoding"));
}

#[test]
fn edits_keep_the_order() {
    type Act = fn(&mut Head);
    let before = &[("A", "1"), ("Host", "h"), ("b", "2"), ("a", "3"), ("Host", "i")];
    let table: &[(&str, Act, &str)] = &[
        ("append", |h| h.append("c", "4"), "A: 1|Host: h|b: 2|a: 3|Host: i|c: 4|"),
        ("set other", |h| h.set("a", "4"), "a: 4|Host: h|b: 2|Host: i|"),
        ("set known", |h| h.set_known(Known::Host, "j"), "A: 1|Host: j|b: 2|a: 3|"),
        ("set absent", |h| h.set("c", ""), "A: 1|Host: h|b: 2|a: 3|Host: i|c: |"),
        ("set number", |h| h.set_number("b", 18_446_744_073_709_551_615), {
            "A: 1|Host: h|b: 18446744073709551615|a: 3|Host: i|"
        }),
        ("set parts", |h| h.set_parts("b", &[b"x", b", ", b"y"]), "A: 1|Host: h|b: x, y|a: 3|Host: i|"),
        ("remove other", |h| assert_eq!(h.remove("A"), 2), "Host: h|b: 2|Host: i|"),
        ("remove known", |h| assert_eq!(h.remove("host"), 2), "A: 1|b: 2|a: 3|"),
        ("remove absent", |h| assert_eq!(h.remove("c"), 0), "A: 1|Host: h|b: 2|a: 3|Host: i|"),
        (
            "remove, set",
            |h| {
                h.remove("a");
                h.set("a", "4");
            },
            "Host: h|b: 2|Host: i|a: 4|",
        ),
        (
            "remove, append known",
            |h| {
                h.remove_known(Known::Host);
                h.append_known(Known::Host, "j");
            },
            "A: 1|b: 2|a: 3|Host: j|",
        ),
        ("rename", |h| assert_eq!(h.rename("a", "cc"), 2), "cc: 1|Host: h|b: 2|cc: 3|Host: i|"),
        ("rename to present", |h| assert_eq!(h.rename("b", "HOST"), 1), "A: 1|HOST: 2|a: 3|"),
        ("rename known", |h| assert_eq!(h.rename("host", "b"), 2), "A: 1|b: h|a: 3|b: i|"),
        ("rename to itself", |h| assert_eq!(h.rename("B", "B"), 1), "A: 1|Host: h|B: 2|a: 3|Host: i|"),
        ("rename absent", |h| assert_eq!(h.rename("c", "a"), 0), "A: 1|Host: h|b: 2|a: 3|Host: i|"),
        ("item to last", |h| h.append_item(Known::Host, "j"), "A: 1|Host: h|b: 2|a: 3|Host: i, j|"),
        ("item to none", |h| h.append_item(Known::Via, "j"), "A: 1|Host: h|b: 2|a: 3|Host: i|Via: j|"),
    ];
    for (what, act, after) in table {
        let mut head = head(before);
        act(&mut head);
        assert_eq!(lines(&head).replace("\r\n", "|"), *after, "{what}");
        assert_eq!(head.len(), head.iter().count(), "{what}");
        assert_eq!(head.len(), after.matches('|').count(), "{what}");
    }
}

#[test]
fn sets_are_removed_and_heads_appended() {
    let mut first = head(&[("a", "1"), ("Via", "2"), ("X-Real-IP", "3"), ("via", "4")]);
    let second = {
        let mut head = head(&[("Via", "5"), ("b", "6"), ("X-Real-IP", "7")]);
        head.remove("b");
        head
    };
    assert_eq!(first.remove_set(KnownSet::of(&[Known::Via, Known::Host, Known::Other])), 2);
    assert_eq!(first.get_known(Known::Via), None);
    first.append_head(&second);
    assert_eq!(lines(&first).replace("\r\n", "|"), "a: 1|X-Real-IP: 3|Via: 5|X-Real-IP: 7|");
    assert_eq!((first.len(), first.get_known(Known::Via)), (4, Some(&b"5"[..])));
    let all_but_via = KnownSet::of(&[Known::Via]).complement();
    assert_eq!((first.remove_set(all_but_via), first.len()), (2, 2), "unlisted names are in no set");
}

#[test]
fn renamed_fields_are_found_by_their_new_name() {
    let mut head = head(&[("x-host", "a")]);
    head.rename("x-host", "Host");
    assert_eq!(head.get_known(Known::Host), Some(&b"a"[..]));
    head.rename("host", "x-host");
    assert_eq!(head.get_known(Known::Host), None);
    assert_eq!(head.get("x-host"), Some(&b"a"[..]));
}

#[test]
fn values_cannot_end_their_line_rfc9110_5_5() {
    let mut head = Head::new();
    head.append("a", "x\r\nb: y\0");
    head.set_known(Known::Via, "x\ny");
    head.append_item(Known::Via, "z\r");
    assert_eq!(lines(&head), "a: x  b: y \r\nVia: x y, z \r\n");
}

#[test]
fn neighbours_are_written_in_one_piece() {
    let mut head = head(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
    let pieces = |head: &Head| {
        let mut pieces = 0;
        head.write_lines(|_| pieces += 1);
        pieces
    };
    assert_eq!(pieces(&head), 1);
    head.remove("b");
    assert_eq!(pieces(&head), 2);
}

#[test]
fn a_cleared_head_keeps_its_memory_and_nothing_else() {
    let mut head = head(&[("Host", "a"), ("b", "2")]);
    let span = head.store(b"text");
    let capacity = head.arena.capacity();
    head.clear();
    assert_eq!((head.len(), head.get("host"), head.slice(span)), (0, None, &b""[..]));
    assert_eq!(head.arena.capacity(), capacity);
    assert_eq!(lines(&head), "");
}

#[test]
fn decimal_numbers() {
    for number in [0, 9, 10, 1234567890, u64::MAX] {
        assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append(usize, String),
    Set(usize, String),
    Remove(usize),
    Rename(usize, usize),
}

const NAMES: [&str; 6] = ["Host", "hOST", "x-a", "X-A", "x-b", "Via"];

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let name = 0..NAMES.len();
    proptest::collection::vec(
        prop_oneof![
            (name.clone(), "[a-z]{0,4}").prop_map(|(name, value)| Op::Append(name, value)),
            (name.clone(), "[a-z]{0,4}").prop_map(|(name, value)| Op::Set(name, value)),
            name.clone().prop_map(Op::Remove),
            (name.clone(), name).prop_map(|(old, new)| Op::Rename(old, new)),
        ],
        0..24,
    )
}

proptest! {
    /// Any sequence of edits gives what the same edits of a plain list give.
    #[test]
    fn a_head_is_a_list_of_fields(ops in ops()) {
        let mut head = Head::new();
        let mut list: Vec<(String, String)> = Vec::new();
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        for op in ops {
            match op {
                Op::Append(name, value) => {
                    head.append(NAMES[name], &value);
                    list.push((NAMES[name].into(), value));
                }
                Op::Set(name, value) => {
                    head.set(NAMES[name], &value);
                    let at = list.iter().position(|field| same(&field.0, NAMES[name])).unwrap_or(list.len());
                    list.insert(at, (NAMES[name].into(), value));
                    let mut index = 0;
                    list.retain(|field| {
                        index += 1;
                        index - 1 == at || !same(&field.0, NAMES[name])
                    });
                }
                Op::Remove(name) => {
                    let removed = head.remove(NAMES[name]);
                    let before = list.len();
                    list.retain(|field| !same(&field.0, NAMES[name]));
                    prop_assert_eq!(removed, before - list.len());
                }
                Op::Rename(old, new) => {
                    let renamed = head.rename(NAMES[old], NAMES[new]);
                    let count = list.iter().filter(|field| same(&field.0, NAMES[old])).count();
                    prop_assert_eq!(renamed, count);
                    if count > 0 {
                        list.retain(|field| same(&field.0, NAMES[old]) || !same(&field.0, NAMES[new]));
                        for field in list.iter_mut().filter(|field| same(&field.0, NAMES[old])) {
                            field.0 = NAMES[new].into();
                        }
                    }
                }
            }
        }
        let text: String = list.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        prop_assert_eq!(lines(&head), text);
        for name in NAMES {
            let values: Vec<_> =
                list.iter().filter(|field| same(&field.0, name)).map(|field| field.1.as_bytes()).collect();
            prop_assert_eq!(head.get_all(name).collect::<Vec<_>>(), values.clone());
            prop_assert_eq!(head.get(name), values.first().copied());
        }
    }
}
