//! Template values as JSON, character for character as Python's `json.dumps` prints them: a model was trained on
//! prompts made that way.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// The filter `tojson` that Hugging Face gives to chat templates: nothing escaped for HTML, keys in their order.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (item, key) = match separators.as_deref() {
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(failed("separators: expected two strings")),
    };
    let mut writer = Writer {
        out: String::new(),
        indent,
        item,
        key,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: String,
    indent: Option<usize>,
    item: &'a str,
    key: &'a str,
    ascii: bool,
    sort: bool,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)?),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                self.out.push('[');
                let mut empty = true;
                for item in value.try_iter()? {
                    self.separate(empty, depth + 1);
                    empty = false;
                    self.value(&item, depth + 1)?;
                }
                self.close(']', empty, depth);
            }
            ValueKind::Map => {
                let mut keys = Vec::new();
                for key in value.try_iter()? {
                    keys.push((key_text(&key)?, key));
                }
                if self.sort {
                    keys.sort();
                }
                self.out.push('{');
                for (i, (text, key)) in keys.iter().enumerate() {
                    self.separate(i == 0, depth + 1);
                    self.string(text);
                    self.out.push_str(self.key);
                    self.value(&value.get_item(key)?, depth + 1)?;
                }
                self.close('}', keys.is_empty(), depth);
            }
            kind => return Err(failed(format!("a value that is {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn separate(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(self.item);
        }
        self.new_line(depth);
    }

    fn close(&mut self, bracket: char, empty: bool, depth: usize) {
        if !empty {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for char in text.chars() {
            match char {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                char if char < ' ' || (self.ascii && char > '~') => {
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                char => self.out.push(char),
            }
        }
        self.out.push('"');
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::Number => number(key),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.into()),
        ValueKind::None => Ok("null".into()),
        kind => Err(failed(format!("a key that is {kind} is not JSON serializable"))),
    }
}

fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() { Ok(value.to_string()) } else { f64::try_from(value.clone()).map(float) }
}

/// A float as Python's `repr` prints it: the shortest digits that mean it, with an exponent below 1e-4 and from 1e16.
fn float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        // With the point and one digit at least, as `{:?}` has it too.
        -4..16 => {
            let plain = x.to_string();
            if plain.contains('.') { plain } else { plain + ".0" }
        }
        exponent => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
    }
}

fn failed(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {}", reason.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, json: &str) -> Result<String, Error> {
        let mut env = minijinja::Environment::new();
        env.add_filter("tojson", tojson);
        let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
        env.render_str(
            template,
            Value::from_pairs([("x", Value::from(minijinja::value::Serde(value)))]),
        )
    }

    #[test]
    fn prints_as_python_does() {
        let json = r#"{"z":[1,-2.0,0.5,1e-7,0.0001,1e22,123456789012345680.0,1e15,18446744073709551615],"a":{"<&'>":null,"é":"\"\\\n\u0001\u007f/"},"e":[],"o":{},"t":true}"#;
        let expected = r#"{"z": [1, -2.0, 0.5, 1e-07, 0.0001, 1e+22, 1.2345678901234568e+17, 1000000000000000.0, 18446744073709551615], "a": {"<&'>": null, "é": "\"\\\n\u0001"#;
        let expected = format!("{expected}\u{7f}/\"}}, \"e\": [], \"o\": {{}}, \"t\": true}}");
        assert_eq!(render("{{ x | tojson }}", json).expect("a value"), expected);
    }

    #[test]
    fn takes_the_options_of_json_dumps() {
        let json = r#"{"b":[1,{"é😀":2}],"a":[]}"#;
        let cases = [
            (
                "indent=2",
                "{\n  \"b\": [\n    1,\n    {\n      \"é😀\": 2\n    }\n  ],\n  \"a\": []\n}",
            ),
            ("sort_keys=true", r#"{"a": [], "b": [1, {"é😀": 2}]}"#),
            ("ensure_ascii=true", r#"{"b": [1, {"\u00e9\ud83d\ude00": 2}], "a": []}"#),
            ("separators=[',', ':']", r#"{"b":[1,{"é😀":2}],"a":[]}"#),
        ];
        for (options, expected) in cases {
            let template = format!("{{{{ x | tojson({options}) }}}}");
            assert_eq!(render(&template, json).expect("a value"), expected, "{options}");
        }
        assert!(render("{{ x | tojson(colour=1) }}", json).is_err());
        assert!(render("{{ nothing | tojson }}", json).is_err());
    }
}
