use crate::telemetry::redact;
use serde_json::{Map, Value, json};

/// Takes the place of what nobody may read.
const SECRET: &str = "q7zQ7zq7zQ7z";

/// A line stays one line, a JSON line JSON; what is redacted stays as it is; and nothing that stands before a secret keeps it in.
pub fn redaction(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let once = redact(text);
    assert!(
        !once.strip_suffix('\n').unwrap_or(&once).contains(['\n', '\r']),
        "{text:?} becomes more than a line: {once:?}"
    );
    assert!(once.len() <= 12 * text.len(), "{text:?} becomes {} bytes", once.len());
    // Where it touches a word, what was two things is one.
    let parts: Vec<&str> = once.split("[redacted]").collect();
    let apart = parts.windows(2).all(|around| {
        let (before, after) = (around[0], around[1]);
        (before.is_empty() || before.ends_with([' ', '=', '"']))
            && (after.is_empty() || after.starts_with([' ', '&', '"']))
    });
    if apart {
        assert_eq!(redact(&once), once, "{text:?}, once more");
    }
    still_json(&json!({"timestamp": "2026-11-22T23:45:33.123456Z", "message": text, "status": 200}));
    // As the log writes them: objects whose values are no objects and no lists.
    if let Ok(object) = serde_json::from_str::<Map<String, Value>>(text)
        && !object.values().any(|value| value.is_object() || value.is_array())
    {
        still_json(&object.into());
    }
    if !text.contains(SECRET) {
        for planted in [format!("{text} password={SECRET} x"), format!("{text} {{\"password\":\"{SECRET}\"}}")] {
            let line = redact(&planted);
            assert!(!line.contains(SECRET), "{planted:?} keeps its secret: {line:?}");
        }
    }
}

fn still_json(object: &Value) {
    let line = object.to_string();
    let redacted = redact(&line);
    assert!(serde_json::from_str::<Value>(&redacted).is_ok(), "{line} becomes {redacted}");
}
