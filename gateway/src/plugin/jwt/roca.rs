//! RSA keys of chips that made weak primes (ROCA, CVE-2017-15361).
//!
//! Owns the test: such a modulus is a power of 65537 modulo each of a list of small primes, which another one is by a
//! chance of one in a hundred million. Never factors anything.

/// Primes modulo which the powers of 65537 are few.
const PRIMES: [u32; 19] = [3, 5, 7, 11, 13, 17, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];

/// Whether a modulus, its first octet the highest, is of such a chip.
pub fn is_weak(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|&prime| {
        let rest = modulus.iter().fold(0, |rest, &octet| (rest << 8 | u32::from(octet)) % prime);
        let mut power = 1;
        loop {
            if power == rest {
                return true;
            }
            power = power * 65537 % prime;
            if power == 1 {
                return false;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_of_65537_is_weak_and_its_neighbours_are_not() {
        // 65537 to the fifth power.
        let value = 65537u128.pow(5);
        assert!(is_weak(&value.to_be_bytes()));
        for other in [value + 2, value - 2, value * 3, 0, 2] {
            assert!(!is_weak(&other.to_be_bytes()), "{other}");
        }
    }
}
