//! What the flat rules of a generation do: the table from their labels to words, and the programs
//! that words lead to, each stored once for all rules that do the same.

use hipac_classifier::image::Flat;
use hipac_classifier::live::{FlatTable, RuleId};
use hipac_classifier::program::Op;

use super::{Program, Refusal, Writer};
use crate::compile::CompileError;
use crate::live::ground::{Ground, Later};
use crate::live::space::{Align, Block};
use crate::lower::FlatRule;
use crate::tables::program;

impl Writer {
    /// The word of a flat rule; its program is stored, or used once more.
    pub(super) fn does(&mut self, flat: &FlatRule) -> Result<Flat, Refusal> {
        match flat.end {
            Op::Verdict(id) if flat.is_plain() => return Ok(Flat::Verdict(id)),
            Op::Return if flat.is_plain() => return Ok(Flat::Return),
            Op::Continue if flat.is_plain() => return Ok(Flat::Continue),
            _ => {}
        }
        self.words.clear();
        program(flat, &flat.end, &mut self.words);
        if let Some(&at) = self.programs.get(self.words.as_slice()) {
            if let Some(program) = self.program_uses.get_mut(&at) {
                program.uses += 1;
            }
            return Ok(Flat::Program(at));
        }
        let bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let block = self.ground.write(&bytes, Align::Unit)?;
        let at = (block.offset() / 4) as u32;
        if at as usize > Flat::PROGRAM_WORDS_MAX {
            let limit = Flat::PROGRAM_WORDS_MAX;
            return Err(CompileError::TooLarge { what: "program words", count: at as usize, limit }.into());
        }
        let words: Box<[u32]> = self.words.as_slice().into();
        self.programs.insert(words.clone(), at);
        self.program_uses.insert(at, Program { words, block, uses: 1 });
        Ok(Flat::Program(at))
    }

    /// A flat rule under a key; the table grows when it is full.
    pub(super) fn put_key(&mut self, key: u64, does: Flat, id: RuleId) -> Result<(), Refusal> {
        let is_full = self.keys + 1 > self.table.places() / 8 * 7;
        let insert =
            |table: FlatTable, ground: &Ground| table.insert(ground.generation.memory(), key, does, id);
        let mut put = if is_full { None } else { insert(self.table, &self.ground) };
        if put.is_none() {
            self.grow_table()?;
            put = insert(self.table, &self.ground);
        }
        self.reach = self.reach.max(put.ok_or(Refusal::Replan)?);
        self.keys += 1;
        Ok(())
    }

    /// A larger table with all that is in this one.
    pub(super) fn grow_table(&mut self) -> Result<(), Refusal> {
        let mut keys = self.keys + self.keys / 4 + 64;
        loop {
            let table = new_table(&mut self.ground, keys)?;
            let memory = self.ground.generation.memory();
            let mut reach = 0;
            let fits = self.table.entries(memory).all(|(key, value)| {
                let put = table.insert_word(memory, key, value);
                reach = reach.max(put.unwrap_or(0));
                put.is_some()
            });
            let old = if fits { std::mem::replace(&mut self.table, table) } else { table };
            if fits {
                self.reach = reach;
                self.ground.generation.set_flats(self.table);
            }
            self.ground.drop_block(Block::of(old.at(), old.bytes(), Align::Line));
            if fits {
                return Ok(());
            }
            keys += keys / 4;
        }
    }

    pub(super) fn retire_key(&mut self, key: u64, with_program: bool) {
        // A label that never got as far as the table may be another rule's by the time it is forgotten.
        let Some((does, _)) = self.table.get(self.ground.generation.memory(), key) else { return };
        if self.ground.is_private() {
            if self.table.remove(self.ground.generation.memory(), key) {
                self.keys -= 1;
            }
        } else {
            self.ground.space.retire_other(Later::Forget(key));
        }
        if with_program {
            self.retire_program(does);
        }
    }

    /// A flat rule that does this is gone.
    pub(super) fn retire_program(&mut self, does: Flat) {
        let Flat::Program(at) = does else { return };
        if self.ground.is_private() {
            self.free_program(at);
        } else {
            self.ground.space.retire_other(Later::FreeProgram(at));
        }
    }

    pub(super) fn free_program(&mut self, at: u32) {
        let Some(program) = self.program_uses.get_mut(&at) else { return };
        program.uses -= 1;
        if program.uses == 0
            && let Some(program) = self.program_uses.remove(&at)
        {
            self.programs.remove(&program.words);
            self.ground.space.give(program.block);
        }
    }
}

pub(super) fn new_table(ground: &mut Ground, keys: usize) -> Result<FlatTable, Refusal> {
    let buckets = (keys.max(16) as f64 / 0.8 / 4.0).ceil() as u32;
    let block = ground.space.take(FlatTable::new(0, buckets).bytes(), Align::Line)?;
    ground.generation.memory().write(block.offset(), &vec![0; block.bytes()]);
    Ok(FlatTable::new(block.offset(), buckets))
}
