//! The search for the other ends of connections: any number of them in one pass over the ledger, of whose other
//! sockets it costs no more than a glance.

use foldhash::HashMap;

use ucr_common::{
    inet::{ENDS_WORD, RawEnds},
    sighting::{Wanted, wanted},
};

use super::{Addresses, Maps, NOTHING, Programs};
use crate::tracer::TracerError;

impl Programs {
    /// Addresses of internet sockets in the ledger whose ends may be among these, which stand as the sockets sought have
    /// them. A few others may be there, too: to be compared.
    ///
    /// # Errors
    /// The kernel's; [`TracerError::Occupied`], soon: somebody may stand still meanwhile.
    pub fn search_ends(
        &self,
        sought: impl Iterator<Item = RawEnds>,
    ) -> Result<Addresses, TracerError> {
        let mut words: HashMap<u32, u64> = HashMap::default();
        for ends in sought {
            let bit = ends.bit();
            *words.entry(bit / ENDS_WORD).or_default() |= 1 << (bit % ENDS_WORD);
        }
        let mut turn = self.turn_within(super::SHORT_PATIENCE)?;
        turn.maps.clear()?;
        turn.maps.want(&Wanted { kind: wanted::ENDS, ..NOTHING })?;
        let set = words.iter().try_for_each(|(at, word)| turn.maps.set_ends(*at, *word));
        let searched = set.and_then(|()| self.run("search_ledger", 0));
        // Whatever came of it: a bit that stays has the next one look at sockets for nothing.
        let cleared = words.keys().map(|at| turn.maps.set_ends(*at, 0)).fold(Ok(()), Result::and);
        searched.and(cleared)?;
        Ok(turn.maps.noted())
    }
}

impl Maps {
    fn set_ends(&mut self, at: u32, word: u64) -> Result<(), TracerError> {
        self.ends.set(at, word, 0).map_err(|source| TracerError::Map { map: "ENDS", source })
    }
}
