//! Closed sets of words: an enum with one text form per variant, for settings, lists and refusals.
//! A word is never taken for another by its case or its beginning.

macro_rules! words {
    ($(#[$doc:meta])* $type:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $type { $($(#[$vdoc])* $variant),+ }

        impl $type {
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = $crate::reject::Invalid;
            fn from_str(text: &str) -> Result<Self, $crate::reject::Invalid> {
                Self::ALL.into_iter().find(|word| word.as_str() == text).ok_or_else(|| {
                    let names = [$($word),+].join(", ");
                    let problem = format!("must be one of {names}, not {}", $crate::id::quote(text));
                    $crate::reject::Invalid::new($what, problem)
                })
            }
        }
    };
}
pub(crate) use words;
