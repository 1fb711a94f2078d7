//! Small JSON files that tell whether they are what was written: the last field, `sum`, is the CRC-32C of all that is
//! before it. Releases that do not know of it read over it, and what they wrote has none. Pure.

use crate::volume::crc;

/// What is before the sum. No string has it: quotes in strings are escaped.
const FIELD: &str = ",\"sum\":\"";
/// What is after it.
const END: &str = "\"}";

/// The text of an object that has fields, with its sum.
pub fn seal(object: &[u8]) -> Vec<u8> {
    let fields = object.trim_ascii_end();
    let fields = fields.strip_suffix(b"}").unwrap_or(fields).trim_ascii_end();
    [fields, format!("{FIELD}{:08x}{END}", crc(fields)).as_bytes()].concat()
}

/// Fails if a text has a sum and is not what was written.
pub fn check(text: &[u8]) -> Result<(), String> {
    let found = text.windows(FIELD.len()).rposition(|part| part == FIELD.as_bytes());
    let Some(at) = found else { return Ok(()) };
    let (fields, rest) = text.split_at(at);
    match rest == format!("{FIELD}{:08x}{END}", crc(fields)).as_bytes() {
        true => Ok(()),
        false => Err("it is not what was written".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Manifest;

    #[test]
    fn what_is_sealed_is_read_as_before_and_a_changed_byte_is_found() {
        let manifest = Manifest::new("v1", 1 << 30, false);
        for plain in [serde_json::to_vec(&manifest).unwrap(), serde_json::to_vec_pretty(&manifest).unwrap()] {
            let sealed = seal(&plain);
            assert_eq!(serde_json::from_slice::<Manifest>(&sealed).unwrap(), manifest, "an earlier release");
            assert_eq!((check(&sealed), check(&plain)), (Ok(()), Ok(())));
            for at in 0..sealed.len() {
                let mut other = sealed.clone();
                other[at] ^= 1;
                // Where the field's own name is hit, what is before it is whole.
                let is_whole = serde_json::from_slice::<Manifest>(&other).is_ok_and(|read| read == manifest);
                assert!(
                    check(&other).is_err() || is_whole || Manifest::parse(&other, "v1").is_err(),
                    "byte {at}"
                );
            }
        }
    }

    #[test]
    fn a_sum_that_is_cut_off_is_found() {
        let sealed = seal(br#"{"a":1}"#);
        assert!(check(&sealed[..sealed.len() - 1]).is_err() && check(&sealed[..10]).is_ok());
        // CRC-32C of the fields, by another program.
        assert_eq!(String::from_utf8(sealed).unwrap(), r#"{"a":1,"sum":"149cdbb2"}"#);
    }
}
