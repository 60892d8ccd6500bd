//! Tables made of tables: `unionmap:{…}`, `pipemap:{…}`; and `randmap:{…}`, one of several values.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Request;
use crate::braces::split_list;
use crate::table::{LookupError, OpenError, Table};

/// How the members' answers make the table's.
type Combine = fn(&[Arc<dyn Table>], &str) -> Result<Option<String>, LookupError>;

struct Combined {
    label: String,
    members: Vec<Arc<dyn Table>>,
    get: Combine,
}

/// `unionmap:{ table, table }`: what every table knows under the key, joined by commas.
pub(super) fn open_unionmap(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    open(request, |members, key| {
        let mut values = Vec::new();
        for member in members {
            values.extend(member.get(key)?);
        }
        Ok((!values.is_empty()).then(|| values.join(",")))
    })
}

/// `pipemap:{ table, table }`: what one table answers is the key for the next.
pub(super) fn open_pipemap(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    open(request, |members, key| {
        let mut value = key.to_owned();
        for member in members {
            match member.get(&value)? {
                Some(next) => value = next,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    })
}

fn open(request: &Request<'_>, get: Combine) -> Result<Arc<dyn Table>, OpenError> {
    let names = items(request, "type:name, type:name")?;
    let members = names.iter().map(|name| request.open_member(name)).collect::<Result<_, _>>()?;
    Ok(Arc::new(Combined { label: request.label.to_owned(), members, get }))
}

fn items<'a>(request: &Request<'a>, expected: &str) -> Result<Vec<&'a str>, OpenError> {
    let list = request.braced().unwrap_or_default();
    let items = split_list(list).map_err(|error| request.configuration_error(error))?;
    if items.is_empty() {
        return Err(request.configuration_error(format!("expected {}:{{ {expected} }}", request.kind)));
    }
    Ok(items)
}

impl Table for Combined {
    fn get(&self, key: &str) -> Result<Option<String>, LookupError> {
        (self.get)(&self.members, key)
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn is_pattern(&self) -> bool {
        self.members.iter().any(|member| member.is_pattern())
    }
}

struct Random {
    label: String,
    values: Vec<String>,
    random: RandomState,
    asked: AtomicU64,
}

/// `randmap:{ value, value }`: each time one of the values, by chance.
pub(super) fn open_randmap(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    let values = items(request, "value, value")?.into_iter().map(str::to_owned).collect();
    let label = request.label.to_owned();
    Ok(Arc::new(Random { label, values, random: RandomState::new(), asked: AtomicU64::new(0) }))
}

impl Table for Random {
    fn get(&self, _key: &str) -> Result<Option<String>, LookupError> {
        let number = self.random.hash_one(self.asked.fetch_add(1, Ordering::Relaxed));
        let choice = usize::try_from(number >> 33).unwrap_or_default() % self.values.len();
        Ok(self.values.get(choice).cloned())
    }

    fn label(&self) -> &str {
        &self.label
    }
}
