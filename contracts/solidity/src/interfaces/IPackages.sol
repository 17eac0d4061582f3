// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Packages of credits
/// @notice Sells packages for a stable token at listed prices. The money goes straight to the treasury: nothing is kept here.
interface IPackages {
    /// @notice A package on the price list
    /// @param price Token base units
    /// @param units Credits that it gives, 1e-6 of a whole credit
    /// @param validityS Seconds that the credits are good for; zero for a package that is not on sale
    struct Package {
        uint128 price;
        uint64 units;
        uint32 validityS;
    }

    /// @notice Thrown when an address may not be zero
    error ZeroAddress();
    /// @notice Thrown when somebody else than the publisher changes the price list
    error NotPublisher(address caller, address publisher);
    /// @notice Thrown when a package gives nothing for its price, or something for none
    error BadPackage(uint32 id);
    /// @notice Thrown when a package is not on sale
    error NotOnSale(uint32 id);
    /// @notice Thrown when the price has risen above what the buyer accepts
    error PriceAbove(uint32 id, uint256 price, uint256 highest);
    /// @notice Thrown when the token delivered something else than was sent
    error WrongAmountReceived(uint256 expected, uint256 received);

    /// @notice The price list changed; a `validityS` of zero takes the package off
    event Listed(uint32 indexed id, uint256 price, uint64 units, uint32 validityS);
    /// @notice `account` got package `id`, paid by `payer`; its credits are good until `validUntil` (seconds)
    event Purchased(
        uint32 indexed id, address indexed account, address indexed payer, uint256 price, uint64 units, uint64 validUntil
    );

    /// @notice What a package costs and gives
    function packageOf(uint32 id) external view returns (Package memory);

    /// @notice Puts a package on the list, changes it, or (with a validity of zero) takes it off; only the publisher
    function list(uint32 id, Package calldata package) external;

    /// @notice Buys a package for `account` with the caller's approved tokens, if it costs at most `highestPrice`
    function buy(uint32 id, address account, uint256 highestPrice) external;

    /// @notice {buy} with a signed allowance (EIP-2612) of exactly `highestPrice`
    function buyWithPermit(
        uint32 id,
        address account,
        uint256 highestPrice,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;
}
