//! Whatever a table's file or name holds, opening and asking it never panics.

// Clippy knows tests by their attribute, and these helpers have none.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

/// Small and reproducible; the test wants variety, not randomness.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    /// Pieces of what means something to one grammar or another, and of what means nothing.
    fn text(&mut self, longest: usize) -> Vec<u8> {
        const PIECES: [&[u8]; 34] = [
            b"if ",
            b"endif",
            b"\n",
            b"\n ",
            b"/",
            b"!",
            b"$1",
            b"${",
            b"}",
            b"$$",
            b"\"",
            b"\\",
            b"# ",
            b" ",
            b"a",
            b"[",
            b"]",
            b"(",
            b")",
            b"*",
            b"{",
            b"=",
            b",",
            b"::1",
            b"10.0.0.0/8",
            b"/33",
            b"\0",
            b"\xff",
            b"\xc3",
            b"\xc3\xbc",
            b":",
            b"\r\n",
            b"inline:",
            b"pipemap:",
        ];
        (0..self.next(longest)).flat_map(|_| PIECES[self.next(PIECES.len())].to_vec()).collect()
    }
}

#[test]
fn garbage_never_panics() {
    lookup::report_warnings_to(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let mut numbers = Numbers(3);
    for _ in 0..300 {
        fs::write(&path, numbers.text(60)).unwrap();
        for kind in ["texthash", "regexp", "cidr", "hash"] {
            fs::write(folder.path().join("table.db"), numbers.text(2000)).unwrap();
            let Ok(table) = lookup::open(&format!("{kind}:{}", path.display())) else { continue };
            for _ in 0..5 {
                let _ = table.get(&String::from_utf8_lossy(&numbers.text(5)));
            }
        }
        for kind in
            ["inline", "static", "regexp", "cidr", "unionmap", "pipemap", "randmap", "unix", "proxy", "fail"]
        {
            let name = format!("{kind}:{{{}}}", String::from_utf8_lossy(&numbers.text(20)));
            if let Ok(table) = lookup::open(&name) {
                let _ = table.get("a");
            }
        }
    }
}
