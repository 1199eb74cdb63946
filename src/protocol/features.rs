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
    /// `keepalive`: a message with each ping, because a browser does not show a page the pings.
    pub keepalive: bool,
}

impl Features {
    /// Parses a list with commas. Ignores what it does not know: a newer client may ask an older hub.
    pub(crate) fn parse(list: &str) -> Self {
        let has = |name| list.split(',').any(|feature| feature.trim() == name);
        Self { own_mood: has("own-mood"), own_sit: has("own-sit"), keepalive: has("keepalive") }
    }

    /// Whether the socket hears of what its visitor does on other sockets.
    pub(crate) fn follows_visitor(self) -> bool {
        self.own_mood || self.own_sit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_those_of_the_list_that_the_hub_knows() {
        let of = |list| {
            let Features { own_mood, own_sit, keepalive } = Features::parse(list);
            (own_mood, own_sit, keepalive)
        };
        assert_eq!(of("own-mood, own-sit,x"), (true, true, false));
        assert_eq!(of("own-mood"), (true, false, false));
        assert_eq!(of("own-sit"), (false, true, false));
        assert_eq!(of("keepalive"), (false, false, true));
        assert_eq!(of(",own-moods,OWN-SIT"), (false, false, false));
    }
}
