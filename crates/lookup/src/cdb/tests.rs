use super::*;

/// Small and reproducible; the tests want variety, not randomness.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn text(&mut self, longest: usize) -> Vec<u8> {
        (0..self.next(longest + 1)).map(|_| u8::try_from(self.next(256)).unwrap()).collect()
    }
}

fn build(records: &[(&[u8], &[u8])], keep: Keep, nul: bool) -> (Vec<u8>, Vec<Dropped>) {
    let mut builder = Builder::new(nul);
    for (line, (key, value)) in (1..).zip(records) {
        builder.add(key, value, line).unwrap();
    }
    builder.finish(keep).unwrap()
}

#[test]
fn what_was_put_in_comes_out() {
    let mut numbers = Numbers(1);
    for size in [0, 1, 2, 10, 1000, 20_000] {
        let records: Vec<(Vec<u8>, Vec<u8>)> = (0..size)
            .map(|n: u32| ([n.to_be_bytes().as_slice(), &numbers.text(20)].concat(), numbers.text(40)))
            .collect();
        let borrowed: Vec<(&[u8], &[u8])> =
            records.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        let (bytes, dropped) = build(&borrowed, Keep::First, false);
        assert!(dropped.is_empty());
        let database = Cdb::from_vec(bytes).unwrap();
        for (key, value) in &borrowed {
            assert_eq!(database.get(key).unwrap(), Some(*value));
        }
        assert_eq!(database.get(b"absent").unwrap(), None);
        assert_eq!(database.records().collect::<Result<Vec<_>, _>>().unwrap(), borrowed);
    }
}

#[test]
fn the_format_is_the_one_of_cdbmake() {
    // Made with cdbmake of DJB's format from "+1,1:a->1", "+3,4:one->here".
    let (bytes, _) = build(&[(b"a", b"1"), (b"one", b"here")], Keep::First, false);
    assert_eq!(&bytes[2048..2073], b"\x01\0\0\0\x01\0\0\0a1\x03\0\0\0\x04\0\0\0onehere");
    assert_eq!(bytes.len(), 2073 + 2 * 2 * 8);
}

#[test]
fn of_two_records_with_one_key_the_first_or_the_last_stays() {
    let records: &[(&[u8], &[u8])] = &[(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4"), (b"a", b"5")];
    for (keep, value, order) in
        [(Keep::First, b"1", [b"a", b"b", b"c"]), (Keep::Last, b"5", [b"b", b"c", b"a"])]
    {
        let (bytes, dropped) = build(records, keep, false);
        let database = Cdb::from_vec(bytes).unwrap();
        assert_eq!(database.get(b"a").unwrap(), Some(value.as_slice()));
        let keys: Vec<_> = database.records().map(|record| record.unwrap().0).collect();
        assert_eq!(keys, order);
        assert_eq!(dropped.iter().map(|dropped| dropped.line).collect::<Vec<_>>(), [3, 5]);
    }
}

#[test]
fn a_nul_at_the_end_of_keys_and_values_does_not_show() {
    let (bytes, _) = build(&[(b"a", b"1")], Keep::First, true);
    assert_eq!(&bytes[2048..2060], b"\x02\0\0\0\x02\0\0\0a\x001\0");
    let database = Cdb::from_vec(bytes).unwrap();
    assert_eq!(database.get(b"a").unwrap(), Some(b"1".as_slice()));
    assert_eq!(database.records().next(), Some(Ok((b"a".as_slice(), b"1".as_slice()))));
}

#[test]
fn no_damage_makes_a_reader_panic_or_run_on() {
    let mut numbers = Numbers(7);
    let records: Vec<(Vec<u8>, Vec<u8>)> =
        (0..50u32).map(|n| (n.to_be_bytes().to_vec(), numbers.text(30))).collect();
    let borrowed: Vec<(&[u8], &[u8])> =
        records.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
    let (whole, _) = build(&borrowed, Keep::First, false);
    for _ in 0..5000 {
        let mut bytes = whole.clone();
        for _ in 0..=numbers.next(8) {
            let at = numbers.next(bytes.len());
            bytes[at] = u8::try_from(numbers.next(256)).unwrap();
        }
        if numbers.next(3) == 0 {
            bytes.truncate(numbers.next(whole.len()));
        }
        if let Ok(database) = Cdb::from_vec(bytes) {
            for (key, _) in &borrowed {
                let _ = database.get(key);
            }
            assert!(database.records().count() <= whole.len() / 8);
        }
    }
}

#[test]
fn a_berkeley_db_file_is_recognised() {
    let mut file = vec![0; 4096];
    file[12..16].copy_from_slice(&0x0006_1561u32.to_le_bytes());
    assert_eq!(Cdb::from_vec(file).err(), Some(Damage::BerkeleyDb));
    assert_eq!(Cdb::from_vec(b"short".to_vec()).err(), Some(Damage::TooShort));
    assert_eq!(Cdb::from_vec(vec![255; 4096]).err(), Some(Damage::Table));
}
