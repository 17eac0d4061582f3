// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title The network's treasury
/// @notice Holds the money from which included jobs pay their workers. Before a day opens its whole pool is reserved, so
/// that its cost is known and covered beforehand; workers are paid from that reserve through a pot of the treasury's own.
/// Nobody owns it: only a vote releases what no day has reserved. Amounts are units, 1e-6 of a whole token.
interface ITreasury {
    /// @notice One day's reserve
    /// @param left Units that may still be paid for this day
    /// @param openedAt When it was opened; zero for a day that never was
    struct Day {
        uint128 left;
        uint64 openedAt;
    }

    /// @notice Thrown when a token's decimals are not 6 to 18
    error UnsupportedDecimals(uint8 decimals);
    /// @notice Thrown when an address may not be zero
    error ZeroAddress();
    /// @notice Thrown when somebody else than the settler opens a day or pays
    error NotSettler(address caller, address settler);
    /// @notice Thrown when somebody else than the coordinator appoints the settler
    error NotCoordinator(address caller, address coordinator);
    /// @notice Thrown when somebody else than the governor releases money
    error NotGovernor(address caller, address governor);
    /// @notice Thrown when days are opened out of order
    error WrongDay(uint64 lastDay, uint64 offered);
    /// @notice Thrown when a day was never opened
    error DayNotOpen(uint64 day);
    /// @notice Thrown when a pool exceeds what was voted
    error AboveCeiling(uint64 pool, uint64 ceiling);
    /// @notice Thrown when what is not reserved does not cover an amount
    error NotCovered(uint256 free, uint256 asked);
    /// @notice Thrown when a day's reserve does not cover a payment
    error ReserveExceeded(uint64 day, uint256 left, uint256 asked);
    /// @notice Thrown when payments come out of order
    error WrongEpoch(uint64 expected, uint64 offered);
    /// @notice Thrown when a day may not be closed yet
    error NotClosable(uint64 day, uint256 closableAt);
    /// @notice Thrown when money would be sent to nobody or to the treasury itself
    error BadRecipient(address to);

    /// @notice The coordinator appointed a settler
    event SettlerAppointed(address settler);
    /// @notice A day was opened: at most `pool` will be paid for it
    event DayOpened(uint64 indexed day, uint256 pool, uint256 free);
    /// @notice Workers' shares of a day were put into the pot under a root of cumulative figures
    event DayPaid(uint64 indexed day, uint64 indexed epoch, uint256 units, uint256 left, bytes32 root, bytes32 commitment);
    /// @notice A day is over; `unspent` is free again
    event DayClosed(uint64 indexed day, uint256 unspent);
    /// @notice A vote released money
    event Released(address indexed to, uint256 units);

    /// @notice Units that no day has reserved
    function free() external view returns (uint256);

    /// @notice One day's reserve
    function dayOf(uint64 day) external view returns (Day memory);

    /// @notice Reserves a day's pool; only the settler, one day after the other, at most the voted ceiling
    function openDay(uint64 day, uint64 pool) external;

    /// @notice Puts what workers earned on a day into the pot and posts its next root; only the settler
    /// @param epoch The last payment's epoch plus one
    /// @param root The payout root, or zero to only fund the pot
    /// @param rootTotal The sum of the root's leaves, at most what was ever funded
    /// @param commitment What the payment stands for, see specs/settlement.md
    function pay(uint64 epoch, uint64 day, uint64 units, bytes32 root, uint64 rootTotal, bytes32 commitment) external;

    /// @notice Frees what a day left, some time after it was opened; anybody may call
    function closeDay(uint64 day) external;

    /// @notice Sends out what no day has reserved; only the governor
    function release(address to, uint64 units) external;

    /// @notice Appoints the settler; only the coordinator
    function setSettler(address newSettler) external;
}
