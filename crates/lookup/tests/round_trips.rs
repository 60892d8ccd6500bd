//! A database holds what was put into it, whatever that is.

use std::io::{Seek as _, Write as _};

use lookup::cdb::{Builder, Cdb, Keep};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

proptest! {
    #[test]
    fn every_record_of_a_database_is_found_again(
        // A NUL at the end of keys is how a file is known whose strings all have one.
        records in btree_map(vec(1_u8.., 0..20), vec(1_u8.., 0..60), 0..80),
        nul: bool,
        stranger in vec(any::<u8>(), 0..20),
    ) {
        let mut builder = Builder::new(nul);
        for (key, value) in &records {
            builder.add(key, value, 1).unwrap();
        }
        let (bytes, dropped) = builder.finish(Keep::Last).unwrap();
        prop_assert_eq!(dropped, []);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        let database = Cdb::open(&file).unwrap().unwrap();
        for (key, value) in &records {
            prop_assert_eq!(database.get(key), Ok(Some(value.as_slice())));
        }
        prop_assert_eq!(database.get(&stranger), Ok(records.get(&stranger).map(Vec::as_slice)));
        let listed: Vec<_> = database.records().map(Result::unwrap).collect();
        let put_in: Vec<_> = records.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        prop_assert_eq!(listed, put_in);
    }
}
