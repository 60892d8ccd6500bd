//! Asking tables, and listing them.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lookup::Table;
use lookup::source::Grammar;

use crate::Failure;
use crate::message::MessageKeys;
use crate::options::{Options, StandardInput};
use crate::target::Target;

/// How much of keys and answers is read and written at a time.
const BUFFER: usize = 256 * 1024;

/// Prints what the first table that knows `key` says. Returns whether one did.
pub(crate) fn query(targets: &[Target], key: &str, options: &Options) -> Result<bool, Failure> {
    for target in targets {
        let table = target.open(options)?;
        if let Some(value) = table.get(key).map_err(Failure::new)? {
            let mut output = std::io::stdout().lock();
            let written = output.write_all(&decoded(value, options)?).and_then(|()| output.write_all(b"\n"));
            written.map_err(|error| Failure::output(&error))?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Prints key and value for each key of standard input that is known. Returns whether one was.
pub(crate) fn query_standard_input(
    targets: &[Target],
    input: StandardInput,
    options: &Options,
) -> Result<bool, Failure> {
    let tables = targets.iter().map(|target| target.open(options)).collect::<Result<Vec<_>, _>>()?;
    let reader = BufReader::with_capacity(BUFFER, std::io::stdin().lock());
    let output = BufWriter::with_capacity(BUFFER, std::io::stdout().lock());
    let mut answers = Answers { tables, options, output, found: false };
    match input {
        StandardInput::Lines => ask_lines(reader, &mut answers)?,
        StandardInput::Message { header, body } => {
            let mut keys = MessageKeys::new(reader, header, body);
            while let Some(key) = keys.next().map_err(|error| input_error(&error))? {
                answers.ask(key)?;
            }
        }
    }
    answers.output.flush().map_err(|error| Failure::output(&error))?;
    Ok(answers.found)
}

fn ask_lines(
    mut reader: BufReader<impl std::io::Read>,
    answers: &mut Answers<'_, impl Write>,
) -> Result<(), Failure> {
    let mut line = Vec::new();
    loop {
        // Whoever asks line by line waits for an answer before the next.
        if reader.buffer().is_empty() {
            answers.output.flush().map_err(|error| Failure::output(&error))?;
        }
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|error| input_error(&error))? == 0 {
            return Ok(());
        }
        answers.ask(line.strip_suffix(b"\n").unwrap_or(&line))?;
    }
}

struct Answers<'a, W: Write> {
    tables: Vec<Arc<dyn Table>>,
    options: &'a Options,
    output: BufWriter<W>,
    found: bool,
}

impl<W: Write> Answers<'_, W> {
    fn ask(&mut self, key: &[u8]) -> Result<(), Failure> {
        // What is not UTF-8 is in no table.
        let Ok(text) = std::str::from_utf8(key) else { return Ok(()) };
        for table in &self.tables {
            let Some(value) = table.get(text).map_err(Failure::new)? else { continue };
            self.found = true;
            let value = decoded(value, self.options)?;
            return print_entry(&mut self.output, key, &value, self.options.grammar)
                .map_err(|error| Failure::output(&error));
        }
        Ok(())
    }
}

/// Prints every entry of each table.
pub(crate) fn list(targets: &[Target], options: &Options) -> Result<(), Failure> {
    for target in targets {
        let table = target.open(options)?;
        let mut output = BufWriter::with_capacity(BUFFER, std::io::stdout().lock());
        let mut trouble = None;
        let listed = table.visit_entries(&mut |key, value| {
            let decoded = if options.file_values { decode(value) } else { Ok(value.to_vec()) };
            let written = decoded.and_then(|value| {
                print_entry(&mut output, key, &value, options.grammar)
                    .map_err(|error| Failure::output(&error))
            });
            match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(failure) => {
                    trouble = Some(failure);
                    ControlFlow::Break(())
                }
            }
        });
        if !listed.map_err(Failure::new)? {
            let label = target.label();
            return Err(Failure::new(format!("table {label}: this type has no list of entries")));
        }
        trouble.map_or(Ok(()), Err)?;
        output.flush().map_err(|error| Failure::output(&error))?;
    }
    Ok(())
}

fn print_entry(output: &mut impl Write, key: &[u8], value: &[u8], grammar: Grammar) -> std::io::Result<()> {
    output.write_all(key)?;
    output.write_all(if grammar == Grammar::Alias { b":\t" } else { b"\t" })?;
    output.write_all(value)?;
    output.write_all(b"\n")
}

fn decoded(value: String, options: &Options) -> Result<Vec<u8>, Failure> {
    if options.file_values { decode(value.as_bytes()) } else { Ok(value.into_bytes()) }
}

fn decode(value: &[u8]) -> Result<Vec<u8>, Failure> {
    STANDARD
        .decode(value)
        .map_err(|error| Failure::new(format!("a value is not the content of a file in base64: {error}")))
}

fn input_error(error: &std::io::Error) -> Failure {
    Failure::io("read", Path::new("standard input"), error)
}
