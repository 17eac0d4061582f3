//! Lists that nearly always have one to four items: they lie in place, without an allocation, up to a number of items.
//! Bytes and text are those of a `Vec`. Must not: know what the items mean.

use minicbor::{Decode, Decoder, Encode, Encoder};
use serde::{Serialize, Serializer};
use smallvec::SmallVec;
use std::ops::{Deref, DerefMut};

/// A list with room for `N` items in place; more go into an allocation of their own.
#[derive(Clone, PartialEq, Eq)]
pub struct Few<T, const N: usize>(SmallVec<[T; N]>);

impl<T, const N: usize> Few<T, N> {
    /// Nothing in it.
    #[inline]
    pub fn new() -> Few<T, N> {
        Few(SmallVec::new())
    }

    /// Adds an item at the end.
    #[inline]
    pub fn push(&mut self, item: T) {
        self.0.push(item);
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps only the items for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.0.retain(|item| keep(item));
    }
}

impl<T, const N: usize> Default for Few<T, N> {
    #[inline]
    fn default() -> Few<T, N> {
        Few::new()
    }
}

impl<T, const N: usize> Deref for Few<T, N> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> DerefMut for Few<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: std::fmt::Debug, const N: usize> std::fmt::Debug for Few<T, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<T, const N: usize> From<Vec<T>> for Few<T, N> {
    fn from(items: Vec<T>) -> Few<T, N> {
        items.into_iter().collect()
    }
}

impl<T, const N: usize> FromIterator<T> for Few<T, N> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Few<T, N> {
        Few(items.into_iter().collect())
    }
}

impl<T, const N: usize> Extend<T> for Few<T, N> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        self.0.extend(items);
    }
}

impl<T, const N: usize> IntoIterator for Few<T, N> {
    type Item = T;
    type IntoIter = smallvec::IntoIter<[T; N]>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a Few<T, N> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a mut Few<T, N> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<T: PartialEq, const N: usize> PartialEq<Vec<T>> for Few<T, N> {
    fn eq(&self, other: &Vec<T>) -> bool {
        **self == **other
    }
}

impl<C, T: Encode<C>, const N: usize> Encode<C> for Few<T, N> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(self.len() as u64)?;
        self.iter().try_for_each(|item| item.encode(e, c))
    }
}

impl<'b, C, T: Decode<'b, C>, const N: usize> Decode<'b, C> for Few<T, N> {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Few<T, N>, minicbor::decode::Error> {
        d.array_iter_with(c)?.collect()
    }
}

impl<T: Serialize, const N: usize> Serialize for Few<T, N> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Bytes, text and order are a `Vec`'s, within the place and beyond it.
        #[test]
        fn it_is_a_vec(items in prop::collection::vec(any::<u32>(), 0..8)) {
            let few: Few<u32, 3> = items.clone().into();
            let bytes = minicbor::to_vec(&few).unwrap();
            prop_assert_eq!(&bytes, &minicbor::to_vec(&items).unwrap());
            prop_assert_eq!(minicbor::decode::<Few<u32, 3>>(&bytes).unwrap(), items.clone());
            prop_assert_eq!(serde_json::to_string(&few).unwrap(), serde_json::to_string(&items).unwrap());
            prop_assert_eq!(format!("{few:?}"), format!("{items:?}"));
            prop_assert_eq!(few.into_iter().collect::<Vec<u32>>(), items);
        }
    }
}
