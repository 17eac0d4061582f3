//! The mistakes that the simulation must catch, by name. Those of the pipeline are switches in it; those of what drives it
//! (fencing header, check at the start, the tail's lock) are switches of the simulation. Must not: behaviour.

/// A mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// The expected sequence is not sent with a publish.
    DropFencing,
    /// A writer begins without comparing the stream with the archive.
    SkipTailCheck,
    /// A deposed writer may still append to the archive tail.
    TailNotFenced,
    /// One inside the pipeline.
    #[cfg(feature = "mutants")]
    Pipeline(journal::pipeline::Mutant),
}

impl Mistake {
    /// Every one. What `NoNonce` would do to two writers that start at one microsecond is too rare for chance and has a test
    /// of its own; that later terms do not begin at all is caught here.
    pub fn all() -> Vec<Mistake> {
        let drivers = [Mistake::DropFencing, Mistake::SkipTailCheck, Mistake::TailNotFenced];
        #[cfg(feature = "mutants")]
        let pipeline = {
            use journal::pipeline::Mutant;
            Mutant::ALL.iter().copied().map(Mistake::Pipeline)
        };
        #[cfg(not(feature = "mutants"))]
        let pipeline = std::iter::empty();
        drivers.into_iter().chain(pipeline).collect()
    }

    /// As the command line calls it: `reply-before-ack`.
    pub fn name(&self) -> String {
        let words = match self {
            Mistake::DropFencing | Mistake::SkipTailCheck | Mistake::TailNotFenced => format!("{self:?}"),
            #[cfg(feature = "mutants")]
            Mistake::Pipeline(mutant) => format!("{mutant:?}"),
        };
        let mut name = String::new();
        for letter in words.chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Mistake> {
        Mistake::all().into_iter().find(|mistake| mistake.name() == name)
    }
}
