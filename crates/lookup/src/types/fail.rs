//! `fail:name`: every lookup fails, to try out what the rest of the configuration makes of it.

use std::sync::Arc;

use super::Request;
use crate::table::{LookupError, OpenError, Table};

struct Fail(String);

pub(super) fn open(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    Ok(Arc::new(Fail(request.label.to_owned())))
}

impl Table for Fail {
    fn get(&self, _key: &str) -> Result<Option<String>, LookupError> {
        Err(LookupError::new(&self.0, "a table of type fail always fails"))
    }

    fn label(&self) -> &str {
        &self.0
    }
}
