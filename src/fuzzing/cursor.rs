use crate::tenancy::Cursor;

/// A cursor has one spelling: what is taken for one is what was made of it. Any place has a cursor that leads back to it.
pub fn cursor(data: &[u8]) {
    if let Some(cursor) = std::str::from_utf8(data).ok().and_then(Cursor::decode) {
        assert_eq!(cursor.encode().as_bytes(), data, "its one spelling");
    }
    // The bytes of a place, which the fuzzer then need not write in base64.
    if let Some(bytes) = data.first_chunk::<24>() {
        let text = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, bytes);
        if let Some(cursor) = Cursor::decode(&text) {
            assert_eq!(cursor.encode(), text);
        } else {
            // Times before 1970, and after the year 9999, with which the databases' ways to write times end.
            let micros = i64::from_be_bytes(*bytes.first_chunk().unwrap());
            assert!(!(0..253_402_300_800_000_000).contains(&micros), "{micros} is the time of a row");
        }
    }
}
