//! Lists of properties of page views: those with rollups, and those whose values are public.
//!
//! Pure.

/// The maximum length of a property's name, in bytes: events cannot have longer ones.
pub(crate) const PROP_LIMIT: usize = 1024;

/// Limit of names in a list, because each page view counts once for each of its listed properties.
const NAMES_LIMIT: usize = 20;

/// Names of properties. The default is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PropNames(Vec<String>);

impl PropNames {
    /// Parses names of properties, separated by commas.
    ///
    /// # Errors
    /// A name is empty or too long, or there are more than 20.
    pub fn parse(list: &str) -> Result<Self, String> {
        if list.trim().is_empty() {
            return Ok(Self::default());
        }
        let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
        if names.len() <= NAMES_LIMIT && names.iter().all(|name| is_prop(name)) {
            Ok(Self(names))
        } else {
            Err("must be at most 20 names of properties of 1 to 1024 bytes, separated by commas".to_owned())
        }
    }

    /// Whether the property is one of them.
    pub(crate) fn has(&self, prop: &str) -> bool {
        self.0.iter().any(|name| name == prop)
    }

    /// Returns the names of both lists, each once.
    pub(crate) fn and(&self, other: &Self) -> Vec<String> {
        let more = other.0.iter().filter(|name| !self.has(name));
        self.0.iter().chain(more).cloned().collect()
    }
}

/// Whether a name is short enough for a property.
pub(crate) fn is_prop(name: &str) -> bool {
    (1..=PROP_LIMIT).contains(&name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn props_are_parsed_from_a_list() {
        let props = PropNames::parse("plan, utm_source").unwrap();
        assert!(props.has("plan") && props.has("utm_source") && !props.has("email") && !props.has(""));
        assert_eq!(PropNames::parse(" "), Ok(PropNames::default()));
        assert_eq!(props.and(&PropNames::parse("lang,plan").unwrap()), ["plan", "utm_source", "lang"]);
        for invalid in ["plan,", ",", &"x".repeat(1025), &"x,".repeat(20)] {
            assert!(PropNames::parse(invalid).is_err(), "{invalid}");
        }
    }
}
