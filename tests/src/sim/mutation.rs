//! Deliberate mistakes, each at a seam between a real part and the simulation, so that nothing of them
//! is in what users run. A checker that is worth something finds every one.

macro_rules! mutations {
    ($($(#[doc = $what:literal])+ $name:ident = $text:literal,)+) => {
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mutation {
            $($(#[doc = $what])+ $name,)+
        }

        impl Mutation {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

mutations! {
    /// The controller takes an old lease for ended at once.
    LeaseEndsAtOnce = "lease-ends-at-once",
    /// A member tells a position that it does not have.
    WrongPosition = "wrong-position",
    /// An agent takes up a place of a smaller term.
    SmallerTerm = "smaller-term",
    /// The primary counts one standby too few.
    OneVoterLess = "one-voter-less",
    /// A standby says that it has what it only received.
    AcknowledgeBeforeFlush = "acknowledge-before-flush",
    /// A member says that it is sealed, and still receives.
    SealedAttached = "sealed-attached",
    /// The holder counts its lease from the answer.
    LeaseFromAnswer = "lease-from-answer",
    /// A promise is not on disk.
    PromiseInMemory = "promise-in-memory",
    /// A promise keeps nobody from a later term.
    PromiseForgotten = "promise-forgotten",
    /// Books are not on disk.
    BooksInMemory = "books-in-memory",
    /// An agent decides before it knows what its own ended step wrote.
    BooksUnsettled = "books-unsettled",
    /// Nobody ends an instance at the lease's end.
    NoFence = "no-fence",
    /// There is no guard.
    NoGuard = "no-guard",
    /// A set of synchronous standbys counts before they have what was written.
    SettledAtOnce = "settled-at-once",
    /// The end is attested while a process lives.
    ReleasedAlive = "released-alive",
    /// What a dead instance alone had counts as saved, and was not brought.
    SalvageSkipped = "salvage-skipped",
    /// Data that went another way is started as a standby.
    DivergenceIgnored = "divergence-ignored",
    /// The set of synchronous standbys is not in force before the promoted one writes.
    NoQuorumAtPromotion = "no-quorum-at-promotion",
    /// Two members make a timeline of the same number.
    TimelineReused = "timeline-reused",
    /// One promise is enough.
    OnePromise = "one-promise",
    /// What is recorded is not durable when it is told.
    ToldBeforeDurable = "told-before-durable",
    /// A switchover's primary stops at once and says that it stopped cleanly.
    HandOverByForce = "hand-over-by-force",
    /// Agents do not keep what they were told, so that nobody notices an old copy of the store.
    ToldForgotten = "told-forgotten",
}

impl std::str::FromStr for Mutation {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|one| one.as_str() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|one| one.as_str()).collect();
            format!("no such mutation: {text}; there are {}", names.join(", "))
        })
    }
}
