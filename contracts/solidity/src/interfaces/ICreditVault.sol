// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title The users' prepaid vault
/// @notice Users deposit a token, sign how much may be spent in all, and are debited once an epoch for what they used.
/// Nobody owns the funds: a debit can only go to the operators' pot, never above the user's signed cap, and every user
/// can leave after a fixed delay without anybody's help. Amounts are vault units, 1e-6 of a whole token, unless they
/// are said to be token base units.
interface ICreditVault {
    /// @notice One account, in one storage slot
    /// @param balance Units that belong to the account
    /// @param charged Units ever debited
    /// @param cap The highest `charged` that the account has signed for
    /// @param validUntil The last time at which the cap may be used by a settlement
    /// @param exitAt When a requested exit may be finalized; zero without a request
    struct Account {
        uint64 balance;
        uint64 charged;
        uint64 cap;
        uint32 validUntil;
        uint32 exitAt;
    }

    /// @notice One-time counters of an account
    /// @param authorisation Signed into spend authorisations; bumped by a finalized exit
    /// @param withdrawal Signed into vouchers; bumped by every withdrawal and by a finalized exit
    struct Nonces {
        uint64 authorisation;
        uint64 withdrawal;
    }

    /// @notice A signed spend authorisation, see {SPEND_AUTHORISATION_TYPEHASH}
    /// @param session Hash of the sign-in session in which it was signed; not used here
    struct SpendAuthorisation {
        address account;
        uint64 maxCumulative;
        uint32 validUntil;
        bytes32 session;
        bytes signature;
    }

    /// @notice A transfer to the vault that its payer signed for the token (EIP-3009)
    /// @param from The payer, whose account is credited
    /// @param value Token base units
    /// @param validAfter The transfer may happen after this time
    /// @param validBefore The transfer may happen before this time
    /// @param nonce The payer's choice, good once
    struct TransferAuthorisation {
        address from;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
        uint8 v;
        bytes32 r;
        bytes32 s;
    }

    /// @notice Thrown when a token's decimals are not 6 to 18
    error UnsupportedDecimals(uint8 decimals);
    /// @notice Thrown when a delay exceeds what users may be asked to wait
    error DelayTooLong(uint32 delay, uint32 longest);
    /// @notice Thrown when an address may not be zero
    error ZeroAddress();
    /// @notice Thrown when somebody else than the coordinator appoints the settler
    error NotCoordinator(address caller, address coordinator);
    /// @notice Thrown when somebody else than the settler settles
    error NotSettler(address caller, address settler);
    /// @notice Thrown when a deposit is zero or no whole number of units
    error NotWholeUnits(uint256 amount, uint256 unit);
    /// @notice Thrown when a deposit would overflow the account
    error BalanceTooLarge(uint256 balance, uint256 largest);
    /// @notice Thrown when the token delivered something else than was sent
    error WrongAmountReceived(uint256 expected, uint256 received);
    /// @notice Thrown when a signature is not by `signer`
    error BadSignature(address signer);
    /// @notice Thrown when settlements come out of order
    error WrongEpoch(uint64 expected, uint64 offered);
    /// @notice Thrown when the records are no whole number of records
    error BadRecords(uint256 length);
    /// @notice Thrown when a settlement would collect less than its sender demands
    error BelowMinimum(uint256 total, uint256 minTotal);
    /// @notice Thrown when a voucher's deadline has passed
    error VoucherExpired(uint256 deadline);
    /// @notice Thrown when a withdrawal exceeds the balance
    error InsufficientBalance(uint64 balance, uint64 asked);
    /// @notice Thrown when the caller has not requested an exit
    error NoExitRequested(address account);
    /// @notice Thrown when an exit's delay has not passed yet
    error ExitNotDue(uint256 exitAt);
    /// @notice Thrown when a signed deposit is for an account that is leaving
    error ExitPending(address account, uint32 exitAt);
    /// @notice Thrown when money would be sent to nobody or to the vault itself
    error BadRecipient(address to);
    /// @notice Thrown when a surplus is attributed for an authorisation that the token has not seen used
    error AuthorisationUnused(address account, bytes32 nonce);
    /// @notice Thrown when an authorisation's surplus was attributed before
    error AlreadyAttributed(address account, bytes32 nonce);
    /// @notice Thrown when more is attributed than the vault holds beyond what belongs to accounts
    error SurplusExceeded(uint256 surplus, uint256 asked);

    /// @notice `units` were credited to `account`, paid by `payer`
    event Deposited(address indexed account, address indexed payer, uint256 units);
    /// @notice Tokens that came by `account`'s authorisation, but past the vault, were credited to it
    event SurplusAttributed(address indexed account, bytes32 indexed nonce, uint256 units);
    /// @notice An account's cap stands at `maxCumulative`: signed as such, or raised by a signed deposit (session 0)
    event Authorised(
        address indexed account, uint64 maxCumulative, uint32 validUntil, uint64 nonce, bytes32 session
    );
    /// @notice An epoch was settled; `recordsHash` is keccak256 of the records in the call's data
    event Settled(
        uint64 indexed epoch, uint256 total, bytes32 root, uint256 rootTotal, bytes32 recordsHash, bytes32 commitment
    );
    /// @notice An account could not cover what was asked: its cumulative charge stands at `charged`
    event Shortfall(address indexed account, uint64 indexed epoch, uint64 asked, uint64 charged);
    /// @notice An account withdrew with the settler's voucher
    event Withdrawn(address indexed account, address indexed to, uint256 units, uint64 nonce);
    /// @notice An account asked to leave; serve it no longer
    event ExitRequested(address indexed account, uint32 exitAt);
    /// @notice An account stays
    event ExitCancelled(address indexed account);
    /// @notice An account left with everything it had
    event ExitFinalized(address indexed account, address indexed to, uint256 units);
    /// @notice The coordinator appointed a settler
    event SettlerAppointed(address settler);

    /// @notice What the vault knows of an account
    function accountOf(address account) external view returns (Account memory);

    /// @notice The counters to sign into the account's next authorisation and voucher
    function noncesOf(address account) external view returns (Nonces memory);

    /// @notice Units that belong to accounts; what the vault holds beyond them came without a deposit
    function liabilities() external view returns (uint256);

    /// @notice Whether the surplus of an account's authorisation was credited
    function wasAttributed(address account, bytes32 nonce) external view returns (bool);

    /// @notice The EIP-712 domain separator
    function domainSeparator() external view returns (bytes32);

    /// @notice What each record's account would stand at after a settlement in this block
    /// @dev Records of one account do not see each other here.
    /// @return charged The cumulative charge of each record's account afterwards
    /// @return debits What of it would be debited now
    function previewSettle(bytes calldata records)
        external
        view
        returns (uint64[] memory charged, uint64[] memory debits);

    /// @notice Appoints the hot key that settles and signs vouchers; only the coordinator
    function setSettler(address newSettler) external;

    /// @notice Pays into any account; never touches a pending exit
    /// @param amount Token base units, a whole number of units
    function deposit(address account, uint256 amount) external;

    /// @notice The same with the caller's permit; a permit that somebody else has already used does no harm
    function depositWithPermit(address account, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Makes the transfer that `signed.from` signed (EIP-3009 `TransferWithAuthorization` to this vault), credits
    /// it, raises the account's cap by it and extends its validity. Anybody may call; refused while the account is leaving
    /// @dev Whoever submits the signature to the token directly moves the money here without credit, see {attributeSurplus}
    function depositWithTransferAuthorisation(TransferAuthorisation calldata signed) external;

    /// @notice As {depositWithTransferAuthorisation}, for `ReceiveWithAuthorization`, which only this vault can submit
    function depositWithReceiveAuthorisation(TransferAuthorisation calldata signed) external;

    /// @notice Credits tokens that came by an account's used authorisation but not through this vault; only the settler,
    /// once for an authorisation, and never more than what belongs to nobody
    /// @dev Does not check: that the authorisation brought these tokens. The settler reads `Transfer(account, vault, ..)`
    /// and `AuthorizationUsed(account, nonce)` in one confirmed transaction. Does not raise the cap.
    function attributeSurplus(address account, uint64 units, bytes32 nonce) external;

    /// @notice Records signed caps; anybody may call. A cap that would not raise cap or validity is skipped
    function authorise(SpendAuthorisation[] calldata authorisations) external;

    /// @notice Debits accounts up to their cumulative charges, funds the operators' pot and posts its next root;
    /// only the settler. Clamps to cap, balance and validity and says so in {Shortfall}: no account can block an epoch
    /// @param epoch The last epoch plus one
    /// @param minTotal Units below which the whole call is refused
    /// @param root The payout root, or zero for a call that only debits
    /// @param rootTotal The sum of the root's leaves, at most what was ever funded
    /// @param commitment What the settlement stands for, see specs/settlement.md
    /// @param records Packed records of 28 bytes: account (20) and cumulative charge (8, big-endian)
    /// @return total The units debited
    function settle(
        uint64 epoch,
        uint64 minTotal,
        bytes32 root,
        uint64 rootTotal,
        bytes32 commitment,
        bytes calldata records
    ) external returns (uint256 total);

    /// @notice Withdraws with a voucher that the settler signed for the caller
    function withdraw(address to, uint64 units, uint32 deadline, bytes calldata signature) external;

    /// @notice Starts the caller's exit; a second call does not move the date
    function requestExit() external;

    /// @notice Takes the caller's exit back
    function cancelExit() external;

    /// @notice Pays everything to `to` once the delay has passed, and ends all of the caller's signatures and vouchers
    function finalizeExit(address to) external;
}
