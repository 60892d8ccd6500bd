//! What users write: `.forward`, `:include:`, and the templates around them.

use crate::pieces::{halves, take_byte};

/// Destinations of a `.forward` or `:include:` file, and of an alias: within the limit, or none.
pub fn destinations(mut data: &[u8]) {
    let line_limit = usize::from(take_byte(&mut data)) + 1;
    for limit in [3, 1000] {
        if let Some(counts) = local_delivery::fuzzing::destinations(data, line_limit, limit) {
            assert!(counts.iter().sum::<usize>() <= limit);
        }
    }
}

/// Templates: what a value brings in has allowed characters only, and nothing nests without end.
pub fn templates(data: &[u8]) {
    let (template, value) = halves(data);
    let (template, value) = (String::from_utf8_lossy(template), String::from_utf8_lossy(value));
    let allowed = "abcdefghijklmnopqrstuvwxyz0123456789";
    if let Some(text) = local_delivery::fuzzing::expand(&template, &value, allowed) {
        assert!(text.len() <= template.len() * (value.len() * 4 + 2));
        let strange = text.chars().find(|c| !allowed.contains(*c) && *c != '_' && !template.contains(*c));
        assert_eq!(strange, None, "a character of the value that is not allowed");
    }
    let _ = local_delivery::fuzzing::pipe_template(&template);
}
