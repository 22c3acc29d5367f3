//! Enumerations that know all of their values, so that none can be left out of a list of them.

/// Declares an enumeration, and `ALL`: its values in the order in which they stand.
macro_rules! every {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident {
            $($(#[$of_value:meta])* $value:ident,)+
        }
    ) => {
        $(#[$attribute])*
        pub enum $name {
            $($(#[$of_value])* $value,)+
        }

        impl $name {
            /// All values, in the order in which they are declared.
            pub const ALL: &[Self] = &[$(Self::$value,)+];
        }
    };
}
