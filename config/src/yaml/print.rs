//! Prints a node as YAML again, for hints that show what to write.

use super::{Node, Type};

/// The node in block style, indented by `indent` spaces; comments are gone.
pub fn print(node: Node<'_>, indent: usize) -> String {
    let mut out = String::new();
    write(node, indent, &mut out);
    out
}

fn write(node: Node<'_>, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match node.kind() {
        Type::Map | Type::List if node.children().next().is_some() => {
            let list = node.kind() == Type::List;
            for child in node.children() {
                out.push_str(&pad);
                out.push_str(&if list { "-".to_owned() } else { format!("{}:", scalar(child.key(), true)) });
                if matches!(child.kind(), Type::Map | Type::List) && child.children().next().is_some() {
                    out.push('\n');
                    write(child, indent + 2, out);
                } else {
                    out.push_str(&format!(" {}\n", leaf(child)));
                }
            }
        }
        _ => out.push_str(&format!("{pad}{}\n", leaf(node))),
    }
}

fn leaf(node: Node<'_>) -> String {
    match node.kind() {
        Type::Map => "{}".into(),
        Type::List => "[]".into(),
        _ => node.scalar().map_or("null".into(), |text| scalar(text.text, text.plain)),
    }
}

/// Plain when it was plain and is safe, else as JSON, which is YAML too.
fn scalar(text: &str, plain: bool) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    let bare = text.bytes().all(safe) && !text.is_empty() && !text.starts_with(['-', '.']);
    if plain && bare { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
