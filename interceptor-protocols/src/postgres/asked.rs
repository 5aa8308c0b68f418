//! What the relay has been asked about: what follows when it is sent, and what stands in its place when it is refused.
//!
//! Promise: after a refusal the session is where the server's own refusal would have left it.

use std::sync::Arc;

use bytes::Bytes;
use interceptor_core::{
    mask::{Mask, Provenance},
    model::{StatementFacts, Text},
    permit::Denial,
    protocol::Refusal,
    sql::CopyStream,
};

use super::{
    action::{Change, Prepared},
    decode::{PostgresDecoder, State},
    enclose::{All, Form},
    names::Name,
    own::{Errand, Gate, PREFIX},
    queue::{Bounds, Changes, Entry, Kind, Place, Places},
    refuse,
    turn::Turn,
    veil::{Behind, Veil},
};

/// What the relay was asked about, and what follows when it is sent or refused.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) what: What,
    /// What sending it may change of what names mean afterwards.
    pub(super) turn: Turn,
    pub(super) snapshot: bool,
    /// The server's error, where our look-up for it was cancelled: so was it, and the client is told, however it is
    /// judged. What then goes upstream in its place cannot be carried out.
    pub(super) cancelled: Option<Bytes>,
    /// The frame, to look at once more.
    pub(super) frame: Bytes,
    /// What sending it sets.
    pub(super) sets: Vec<(String, Text)>,
    /// How it would be enclosed, where it can be.
    pub(super) form: Option<Form>,
    /// What is known of it, where it is one statement.
    pub(super) facts: Option<Arc<StatementFacts>>,
    /// How many copies of labelled data had been made when its names were known.
    pub(super) judged_at: u64,
}

impl Asked {
    /// An exchange that changes nothing of the session.
    pub(super) fn quietly(number: u64, what: What) -> Self {
        Self {
            number,
            what,
            turn: Turn::Nothing,
            snapshot: false,
            cancelled: None,
            frame: Bytes::new(),
            sets: Vec::new(),
            form: None,
            facts: None,
            judged_at: 0,
        }
    }
}

/// The kinds of what is asked.
#[derive(Debug)]
pub(super) enum What {
    Open,
    Query {
        places: Places<Vec<Change>>,
        opaque: bool,
    },
    Function {
        provenance: Option<Arc<Provenance>>,
    },
    Parse {
        name: Name,
        prepared: Prepared,
    },
    Bind,
    Execute {
        changes: Vec<Change>,
        copy: Option<CopyStream>,
        opaque: bool,
        all: All,
        provenance: Option<Arc<Provenance>>,
        behind: Behind,
    },
    Gate(Box<Gate>),
}

impl What {
    /// The message that stands in its place where it must fail.
    pub(super) fn failing(&self, text: &str) -> Bytes {
        match self {
            Self::Query { .. } | Self::Function { .. } => refuse::failing_query(text),
            // The client's own name: a server that refuses a Parse of the unnamed statement has dropped it.
            Self::Parse { name, .. } => refuse::failing_parse(name, text),
            Self::Bind | Self::Execute { .. } | Self::Open | Self::Gate(_) => {
                refuse::failing_parse(&format!("{PREFIX}refused"), text)
            }
        }
    }
}

impl PostgresDecoder {
    /// The relay has sent what it was asked about.
    pub(super) fn asked_was_sent(&mut self, asked: Asked, mask: Mask) {
        let Asked { number, what, turn, snapshot, cancelled, sets, judged_at, .. } = asked;
        if let Some(error) = cancelled {
            self.push_failing(&what, Some(number), error);
            let bounds = self.enclosed_was_sent(&what);
            self.bind_last(bounds);
            return;
        }
        self.turns.sent(turn);
        self.state_of_session.sent(sets);
        self.snapshot |= snapshot;
        let bounds = match what {
            What::Gate(_) | What::Open => Bounds::None,
            ref what => self.enclosed_was_sent(what),
        };
        let veil = match &what {
            What::Gate(_) | What::Open => Veil::closed(),
            What::Function { provenance } => {
                Veil::of(mask.clone(), provenance.clone(), Behind::default(), judged_at)
            }
            What::Execute { provenance, behind, .. } => {
                Veil::of(mask.clone(), provenance.clone(), behind.clone(), judged_at)
            }
            What::Parse { prepared, .. } => {
                Veil::of(mask.clone(), prepared.provenance.clone(), Behind::default(), judged_at)
            }
            What::Query { .. } | What::Bind => Veil::of(mask.clone(), None, Behind::default(), judged_at),
        };
        if !matches!(what, What::Gate(_)) {
            self.mask = Some(mask);
        }
        let kind = match what {
            What::Open => return,
            What::Gate(gate) => {
                self.enquiring = true;
                Kind::Gate(gate)
            }
            What::Query { places, opaque } => {
                let places = places
                    .into_iter()
                    .map(|Place { answers, copy, changes, provenance }| {
                        let changes = changes.into_iter().flat_map(|change| self.plan(change)).collect();
                        Place { answers, copy, changes, provenance }
                    })
                    .collect();
                self.end_segment();
                Kind::Query { places, at: 0, failed: false, opaque }
            }
            What::Function { .. } => {
                self.end_segment();
                Kind::Function { failed: false }
            }
            What::Parse { name, prepared } => {
                self.piping = true;
                Kind::Parse(self.plan(Change::Prepare(name, prepared)))
            }
            What::Bind => {
                self.piping = true;
                Kind::Bind(Changes::new())
            }
            What::Execute { changes, copy, opaque, .. } => {
                self.piping = true;
                self.state_of_session.worked(self.segment);
                let changes = changes.into_iter().flat_map(|change| self.plan(change)).collect();
                Kind::Execute { changes, copy, opaque }
            }
        };
        self.queue.push(Entry { bounds, veil, ..Entry::new(kind, Some(number)) });
    }

    fn bind_last(&mut self, bounds: Bounds) {
        if let Some(entry) = self.queue.last_mut() {
            entry.bounds = bounds;
        }
    }

    /// The relay will not send what it was asked about.
    pub(super) fn asked_was_refused(&mut self, asked: Asked, denial: &Denial) -> Refusal {
        let nothing = Bytes::new();
        if let What::Open = asked.what {
            self.state = State::Over;
            return Refusal { client: refuse::no_session(denial), upstream: nothing };
        }
        if let What::Gate(gate) = asked.what {
            return match gate.errand {
                Errand::Names { asked, .. } => {
                    self.known.learn(asked, Err("the look-up itself was refused".to_owned()));
                    Refusal { client: nothing.clone(), upstream: nothing }
                }
                Errand::Enclosing(part, _) => self.part_was_refused(part, denial),
            };
        }
        if !matches!(asked.what, What::Query { .. } | What::Function { .. }) {
            self.refused_in = Some(self.segment);
        }
        let error = asked.cancelled.unwrap_or_else(|| refuse::refusal(denial));
        if let Some(refusal) = self.enclosed_was_refused(&error) {
            return refusal;
        }
        // Our own look-up has failed the pipeline, and the client has not been told: now it is, with the reason.
        if self.owed.take().is_some() {
            return Refusal { client: error, upstream: nothing };
        }
        if matches!(asked.what, What::Query { .. } | What::Function { .. })
            && self.is_settled()
            && matches!(self.status, b'I' | b'E')
        {
            self.end_segment();
            return Refusal { client: refuse::and_ready(&error, self.status), upstream: nothing };
        }
        self.push_failing(&asked.what, None, error);
        Refusal { client: nothing, upstream: asked.what.failing(&refuse::text(denial)) }
    }

    /// What stands in the place of `what` goes upstream; its error there is `error` to the client.
    fn push_failing(&mut self, what: &What, exchange: Option<u64>, error: Bytes) {
        let kind = match what {
            What::Query { .. } | What::Function { .. } => {
                self.end_segment();
                Kind::Query { places: Places::new(), at: 0, failed: false, opaque: true }
            }
            What::Parse { .. } | What::Bind | What::Execute { .. } | What::Open | What::Gate(_) => {
                self.piping = true;
                Kind::Parse(Changes::new())
            }
        };
        let mut entry = Entry::new(kind, exchange);
        entry.replaced = Some(error);
        self.queue.push(entry);
    }
}
