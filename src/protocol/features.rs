//! Features of a socket: messages that not every client understands, and that a client therefore asks for.
//!
//! A value of the query parameter `features`. Older clients ask for none, and hear nothing new.

/// What a socket gets besides the messages of every socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Features {
    /// `own-mood`: the visitor's mood, whenever it is set.
    pub own_mood: bool,
    /// `own-sit`: the end of the visitor's sit, whenever it is set.
    pub own_sit: bool,
}

impl Features {
    /// Parses a list with commas. Ignores what it does not know: a newer client may ask an older hub.
    pub(crate) fn parse(list: &str) -> Self {
        let has = |name| list.split(',').any(|feature| feature.trim() == name);
        Self { own_mood: has("own-mood"), own_sit: has("own-sit") }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_those_of_the_list_that_the_hub_knows() {
        let of = |list| {
            let Features { own_mood, own_sit } = Features::parse(list);
            (own_mood, own_sit)
        };
        assert_eq!(of("own-mood, own-sit,x"), (true, true));
        assert_eq!(of("own-mood"), (true, false));
        assert_eq!(of("own-sit"), (false, true));
        assert!(Features::parse(",own-moods,OWN-SIT").is_empty());
    }
}
