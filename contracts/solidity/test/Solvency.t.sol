// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {CreditVault} from "../src/CreditVault.sol";
import {OperatorPayouts} from "../src/OperatorPayouts.sol";
import {ICreditVault} from "../src/interfaces/ICreditVault.sol";
import {Fixture} from "./support/Fixture.sol";
import {HostileToken} from "./support/HostileToken.sol";

/// @notice Does at random what users, settler, operators and guardian can do, and keeps books of its own
contract Crowd is Fixture {
    address private constant OPERATOR_ONE = address(0xAA1);
    address private constant OPERATOR_TWO = address(0xAA2);

    address[4] public users;
    uint256 public deposited;
    uint256 public takenOut;
    uint256 public settlements;
    uint256 public claims;
    uint256 public exits;
    uint256 public surplus;
    bool public exitFailed;
    bool public claimsFell;
    bool public othersTouched;
    uint256[4] private _keys = [uint256(0xA1), 0xA2, 0xA3, 0xA4];
    mapping(address => uint256) public highestSignedCap;
    address private _pastUser;
    bytes32 private _pastNonce;
    uint64 private _earnedOne;
    uint64 private _earnedTwo;
    uint64 private _rootEpoch;

    constructor() {
        _setUpVault(18);
        for (uint256 i; i < 4; ++i) {
            users[i] = vm.addr(_keys[i]);
        }
    }

    function parts() external view returns (CreditVault, OperatorPayouts, HostileToken, uint256) {
        return (vault, payouts, token, unit);
    }

    function deposit(uint8 who, uint64 units) external {
        units = uint64(bound(units, 1, 1e12));
        _deposit(users[who % 4], units);
        deposited += units;
    }

    function authorise(uint8 who, uint64 cap) external {
        address user = users[who % 4];
        cap = uint64(bound(cap, 1, 3e12));
        _authorise(_keys[who % 4], user, cap);
        if (cap > highestSignedCap[user]) highestSignedCap[user] = cap;
    }

    function depositSigned(uint8 who, uint64 units, bytes32 nonce) external {
        address user = users[who % 4];
        units = uint64(bound(units, 1, 1e12));
        token.mint(user, units * unit);
        uint64 capBefore = vault.accountOf(user).cap;
        vault.depositWithTransferAuthorisation(_transferAuthorisation(_keys[who % 4], TRANSFER, units, nonce));
        deposited += units;
        // The signature over the amount is a signature for so much more.
        uint256 signed = uint256(capBefore) + units;
        if (signed > highestSignedCap[user]) highestSignedCap[user] = signed;
    }

    /// @dev Somebody submits a signed deposit to the token itself, before the vault can.
    function depositPastTheVault(uint8 who, uint64 units, bytes32 nonce) external {
        address user = users[who % 4];
        units = uint64(bound(units, 1, 1e12));
        token.mint(user, units * unit);
        ICreditVault.TransferAuthorisation memory signed =
            _transferAuthorisation(_keys[who % 4], TRANSFER, units, nonce);
        token.transferWithAuthorization(
            user, address(vault), signed.value, 0, signed.validBefore, nonce, signed.v, signed.r, signed.s
        );
        surplus += units;
        _pastUser = user;
        _pastNonce = nonce;
    }

    function attribute(uint64 units) external {
        units = uint64(bound(units, 1, 1e12));
        vm.prank(settler);
        vault.attributeSurplus(_pastUser, units, _pastNonce);
        surplus -= units;
        deposited += units;
    }

    function settle(uint64 first, uint64 second, uint64 third, uint8 share) external {
        bytes memory records = bytes.concat(
            _record(users[0], uint64(bound(first, 0, 4e12))),
            _record(users[1], uint64(bound(second, 0, 4e12))),
            _record(users[2], uint64(bound(third, 0, 4e12))),
            _record(users[0], first)
        );
        uint64 total = uint64(_settle(records, 0, 0));
        _earnedOne += total * share / 255;
        _earnedTwo += total - total * share / 255;
        bytes32 root = _pair(payouts.leafOf(OPERATOR_ONE, _earnedOne), payouts.leafOf(OPERATOR_TWO, _earnedTwo));
        _settle("", root, _earnedOne + _earnedTwo);
        _rootEpoch = vault.lastEpoch();
        ++settlements;
    }

    function claim(bool first) external {
        vm.warp(block.timestamp + ROOT_DELAY);
        uint256 claimedOne = payouts.claimedOf(OPERATOR_ONE);
        uint256 claimedTwo = payouts.claimedOf(OPERATOR_TWO);
        bytes32 one = payouts.leafOf(OPERATOR_ONE, _earnedOne);
        bytes32 two = payouts.leafOf(OPERATOR_TWO, _earnedTwo);
        if (first) payouts.claim(_rootEpoch, OPERATOR_ONE, _earnedOne, _proof(two));
        else payouts.claim(_rootEpoch, OPERATOR_TWO, _earnedTwo, _proof(one));
        if (payouts.claimedOf(OPERATOR_ONE) < claimedOne || payouts.claimedOf(OPERATOR_TWO) < claimedTwo) claimsFell = true;
        ++claims;
    }

    function withdraw(uint8 who, uint64 units) external {
        address user = users[who % 4];
        units = uint64(bound(units, 0, _balance(user)));
        uint64 nonce = vault.noncesOf(user).withdrawal;
        bytes memory voucher = _signature(SETTLER_KEY, _voucherHash(user, units, nonce, type(uint32).max));
        vm.prank(user);
        vault.withdraw(user, units, type(uint32).max, voucher);
        takenOut += units;
    }

    function requestExit(uint8 who) external {
        vm.prank(users[who % 4]);
        vault.requestExit();
    }

    /// @dev Must never fail one block after the delay, whatever happened before, and must touch nobody else.
    function leave(uint8 who) external {
        address user = users[who % 4];
        uint256 exitAt = vault.accountOf(user).exitAt;
        if (exitAt == 0) return;
        if (block.timestamp < exitAt) vm.warp(exitAt);
        uint256 units = _balance(user);
        uint256 others = _balancesOfOthers(user);
        uint256 before = token.balanceOf(user);
        vm.prank(user);
        try vault.finalizeExit(user) {
            if (token.balanceOf(user) - before != units * unit) exitFailed = true;
        } catch {
            exitFailed = true;
        }
        if (_balancesOfOthers(user) != others) othersTouched = true;
        takenOut += units;
        ++exits;
    }

    function _balancesOfOthers(address user) private view returns (uint256 sum) {
        for (uint256 i; i < 4; ++i) {
            if (users[i] != user) sum += _balance(users[i]);
        }
    }
}

contract SolvencyTest is Fixture {
    Crowd private _crowd;

    function setUp() public {
        _crowd = new Crowd();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_crowd);
    }

    function invariant_everyUnitIsAccountedFor() public view {
        (CreditVault vault_, OperatorPayouts payouts_, HostileToken token_, uint256 unit_) = _crowd.parts();
        uint256 balances;
        uint256 charged;
        for (uint256 i; i < 4; ++i) {
            address user = _crowd.users(i);
            balances += vault_.accountOf(user).balance;
            charged += vault_.accountOf(user).charged;
            // Settled never above what was signed.
            vm.assertLe(vault_.accountOf(user).charged, _crowd.highestSignedCap(user));
        }
        vm.assertEq(vault_.liabilities(), balances);
        vm.assertEq(token_.balanceOf(address(vault_)), (balances + _crowd.surplus()) * unit_);
        vm.assertEq(token_.balanceOf(address(payouts_)), (payouts_.funded() - payouts_.claimedTotal()) * unit_);
        vm.assertEq(payouts_.funded(), charged);
        vm.assertEq(balances + charged + _crowd.takenOut(), _crowd.deposited());
    }

    function invariant_exitsAlwaysSucceedClaimsOnlyGrowNobodyElseIsTouched() public view {
        vm.assertFalse(_crowd.exitFailed());
        vm.assertFalse(_crowd.claimsFell());
        vm.assertFalse(_crowd.othersTouched());
    }
}
