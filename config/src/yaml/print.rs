//! Prints a node as YAML again: for people, and for hints that show what to write.

use super::{Node, Type};
use crate::canonical::{string, value};
use crate::raw::Shape;

/// The node in block style as kubectl prints it, indented by `indent` spaces; comments are gone.
pub fn print(node: Node<'_>, indent: usize) -> String {
    let mut out = String::new();
    match is_block(node) {
        true => block(node, indent, true, &mut out),
        false => {
            out.push_str(&" ".repeat(indent));
            leaf(node, indent, &mut out);
            out.push('\n');
        }
    }
    out
}

/// YAML's longest key of a block has 1,024 characters; a map with a longer one is written as JSON.
const LONGEST_KEY: usize = 1000;

fn is_block(node: Node<'_>) -> bool {
    matches!(node.kind(), Type::Map | Type::List)
        && node.children().next().is_some()
        && node.children().all(|child| child.key().len() <= LONGEST_KEY)
}

/// A list or map that is not empty. `pad`: its first line is not begun yet. Recursion is bounded by the depth limit.
fn block(node: Node<'_>, indent: usize, pad: bool, out: &mut String) {
    let list = node.kind() == Type::List;
    for (at, child) in node.children().enumerate() {
        if pad || at > 0 {
            out.push_str(&" ".repeat(indent));
        }
        if list {
            out.push_str("- ");
            if is_block(child) {
                block(child, indent + 2, false, out);
                continue;
            }
        } else {
            text(child.key(), out);
            out.push(':');
            if is_block(child) {
                out.push('\n');
                // A list begins where its key does.
                let deeper = if child.kind() == Type::List { 0 } else { 2 };
                block(child, indent + deeper, true, out);
                continue;
            }
            out.push(' ');
        }
        leaf(child, indent, out);
        out.push('\n');
    }
}

fn leaf(node: Node<'_>, indent: usize, out: &mut String) {
    match (node.kind(), node.scalar()) {
        (Type::Map | Type::List, _) => value(node, &Shape::Any, out),
        (_, None) => out.push_str("null"),
        (_, Some(scalar)) if scalar.plain && is_bare(scalar.text) => out.push_str(scalar.text),
        (_, Some(scalar)) if is_literal(scalar.text) => literal(scalar.text, indent, out),
        (_, Some(scalar)) => text(scalar.text, out),
    }
}

/// A text, without quotes where it reads back as the same.
fn text(text: &str, out: &mut String) {
    if is_plain(text) { out.push_str(text) } else { string(text, out) }
}

/// Whether what was written without quotes can stay so.
fn is_bare(text: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_./+".contains(&b);
    !text.is_empty() && text.bytes().all(safe)
}

/// Whether a text without quotes is a text for YAML 1.1 and 1.2 alike. Narrower than it could be.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_./@+=: ".contains(&b);
    let first = |b: u8| b.is_ascii_alphanumeric() || b"_/".contains(&b);
    let starts = text.bytes().next().is_some_and(first);
    // Digits, dates, times, hexadecimal and the like.
    let number = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b"abcdefABCDEFxXoOTZ_+.:- ".contains(&b));
    starts
        && !number
        && text.bytes().all(safe)
        && !text.ends_with([':', ' '])
        && !text.contains(": ")
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a text of several lines can be written as it is (`|`).
fn is_literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let printable =
        |c: char| c == '\n' || !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'..));
    body.contains('\n')
        && !body.starts_with(['\n', ' '])
        && !body.ends_with('\n')
        && body.chars().all(printable)
}

fn literal(text: &str, indent: usize, out: &mut String) {
    out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&" ".repeat(indent + 2));
            out.push_str(line);
        }
    }
}
