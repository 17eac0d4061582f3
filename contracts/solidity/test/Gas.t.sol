// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {CheckpointAnchor} from "../src/CheckpointAnchor.sol";
import {CreditVault} from "../src/CreditVault.sol";
import {DollarToken} from "../src/DollarToken.sol";
import {FoilToken} from "../src/FoilToken.sol";
import {NetworkGovernor} from "../src/NetworkGovernor.sol";
import {Packages} from "../src/Packages.sol";
import {StakeRegistry} from "../src/StakeRegistry.sol";
import {Treasury} from "../src/Treasury.sol";
import {ICreditVault} from "../src/interfaces/ICreditVault.sol";
import {IPackages} from "../src/interfaces/IPackages.sol";
import {Fixture} from "./support/Fixture.sol";
import {HostileToken} from "./support/HostileToken.sol";

/// @notice Gas of whole transactions and sizes of deployed code, compared with snapshots/GasTest.json
/// forge-config: default.isolate = true
contract GasTest is Fixture {
    uint256 private constant FIRST_KEY = 0x100000;
    FoilToken private plain;

    /// @dev A plain token: what the hostile one looks up before a transfer is not the vault's cost.
    function setUp() public {
        _setUpVault(6);
        plain = new FoilToken();
        vault = new CreditVault(IERC20(address(plain)), coordinator, settler, guardian, EXIT_DELAY, ROOT_DELAY);
        payouts = vault.payouts();
        unit = vault.UNIT();
    }

    function test_size() public {
        vm.snapshotValue("size of CreditVault (bytes)", address(vault).code.length);
        vm.snapshotValue("size of OperatorPayouts (bytes)", address(payouts).code.length);
        vm.snapshotValue("size of CheckpointAnchor (bytes)", address(new CheckpointAnchor()).code.length);
        vm.snapshotValue("size of FoilToken (bytes)", address(new FoilToken()).code.length);
        vm.snapshotValue("size of DollarToken (bytes)", address(new DollarToken()).code.length);
        StakeRegistry registry = new StakeRegistry(IERC20(address(plain)), 1, 1 days);
        vm.snapshotValue("size of StakeRegistry (bytes)", address(registry).code.length);
        NetworkGovernor governor =
            new NetworkGovernor(IVotes(address(registry)), NetworkGovernor.Options(1, 1 days, 1, 10, 1, 2));
        vm.snapshotValue("size of NetworkGovernor (bytes)", address(governor).code.length);
        vm.snapshotValue("size of AllotmentBounds (bytes)", address(governor.bounds()).code.length);
        Treasury treasury = new Treasury(
            IERC20(address(plain)), governor.bounds(), Treasury.Roles(bob, bob, bob, address(governor)), 1 hours
        );
        vm.snapshotValue("size of Treasury (bytes)", address(treasury).code.length);
        Packages packages = new Packages(IERC20(address(plain)), address(treasury), bob);
        vm.snapshotValue("size of Packages (bytes)", address(packages).code.length);
    }

    function test_deposit_gas() public {
        _deposit(bob, 5e6);
        plain.mint(address(this), 20e6 * unit);
        plain.approve(address(vault), 20e6 * unit);
        vault.deposit(alice, 5e6 * unit);
        vm.snapshotGasLastCall("deposit to a new account");
        vault.deposit(alice, 5e6 * unit);
        vm.snapshotGasLastCall("deposit to an existing account");
    }

    function test_authorise_gas() public {
        _deposit(alice, 5e6);
        for (uint256 i; i < 100; ++i) {
            _deposit(vm.addr(FIRST_KEY + i), 10e6);
        }
        _submit(alice, 5e6, VALID_UNTIL, _signature(ALICE_KEY, _authorisationHash(alice, 5e6, VALID_UNTIL)));
        vm.snapshotGasLastCall("authorise, 1 account");
        vault.authorise(_authorisations(100, 5e6));
        vm.snapshotGasLastCall("authorise, 100 accounts");
    }

    function test_settle_gas() public {
        _fill(1_000);
        _settle(_records(1_000, 1e6), 0, 0);
        _settle(_records(1, 2e6), "root", 1);
        vm.snapshotGasLastCall("settle, 1 account, with root");
        _settle(_records(1_000, 3e6), "root", 1);
        vm.snapshotGasLastCall("settle, 1000 accounts, with root");
        _settle(_records(1_000, 3e6), "root", 1);
        vm.snapshotGasLastCall("settle, 1000 stale records, with root");
    }

    function test_claim_gas() public {
        _fill(1);
        bytes32[] memory proof = new bytes32[](6);
        for (uint64 round = 1; round <= 2; ++round) {
            bytes32 node = payouts.leafOf(bob, round * 1e6);
            for (uint256 i; i < 6; ++i) {
                proof[i] = keccak256(abi.encode(i));
                node = _pair(node, proof[i]);
            }
            _settle(_records(1, 2e6 * round), node, round * 1e6);
            vm.warp(START + round * ROOT_DELAY);
            payouts.claim(round, bob, round * 1e6, proof);
            vm.snapshotGasLastCall(round == 1 ? "claim, proof of 6, first" : "claim, proof of 6, again");
        }
    }

    function test_leaving_gas() public {
        _deposit(alice, 10e6);
        _deposit(bob, 10e6);
        bytes memory voucher = _signature(SETTLER_KEY, _voucherHash(alice, 4e6, 0, VALID_UNTIL));
        vm.prank(alice);
        vault.withdraw(alice, 4e6, VALID_UNTIL, voucher);
        vm.snapshotGasLastCall("withdraw by voucher, first");
        vm.prank(alice);
        vault.requestExit();
        vm.snapshotGasLastCall("requestExit");
        vm.warp(START + EXIT_DELAY);
        vm.prank(alice);
        vault.finalizeExit(alice);
        vm.snapshotGasLastCall("finalizeExit");
    }

    function test_signedDeposit_gas() public {
        DollarToken dollar = new DollarToken();
        vault = new CreditVault(IERC20(address(dollar)), coordinator, settler, guardian, EXIT_DELAY, ROOT_DELAY);
        dollar.mint(alice, 20e6);
        token = HostileToken(address(dollar)); // only its domain is asked for
        unit = 1;
        vault.depositWithTransferAuthorisation(_transferAuthorisation(ALICE_KEY, TRANSFER, 5e6, bytes32(0)));
        vm.snapshotGasLastCall("signed deposit to a new account");
        vault.depositWithTransferAuthorisation(_transferAuthorisation(ALICE_KEY, TRANSFER, 5e6, bytes32(uint256(1))));
        vm.snapshotGasLastCall("signed deposit to an existing account");
        // What a payment per request costs, for the comparison: the transfer alone, to somebody who has some already.
        ICreditVault.TransferAuthorisation memory signed =
            _transferAuthorisation(ALICE_KEY, TRANSFER, 1e6, bytes32(uint256(2)));
        dollar.transferWithAuthorization(
            alice, address(vault), signed.value, 0, signed.validBefore, signed.nonce, signed.v, signed.r, signed.s
        );
        vm.snapshotGasLastCall("a signed transfer of the token alone");
    }

    function test_stake_gas() public {
        StakeRegistry registry = new StakeRegistry(IERC20(address(plain)), 1, 1 days);
        plain.mint(address(this), 20);
        plain.approve(address(registry), 20);
        registry.stake(10);
        vm.snapshotGasLastCall("stake, first");
        vm.warp(START + 1);
        registry.stake(5);
        vm.snapshotGasLastCall("stake, again");
        registry.unbond(5);
        vm.snapshotGasLastCall("unbond");
    }

    function test_package_gas() public {
        Packages packages = new Packages(IERC20(address(plain)), address(0x77), bob);
        vm.prank(bob);
        packages.list(1, IPackages.Package(5e6, 6e6, 30 days));
        plain.mint(address(this), 20e6);
        plain.approve(address(packages), 20e6);
        packages.buy(1, alice, 5e6);
        packages.buy(1, alice, 5e6);
        vm.snapshotGasLastCall("buy a package");
    }

    function test_anchor_gas() public {
        CheckpointAnchor anchor = new CheckpointAnchor();
        anchor.anchor("origin", 5, "root");
        vm.snapshotGasLastCall("anchor, first");
        anchor.anchor("origin", 6, "next");
        vm.snapshotGasLastCall("anchor, again");
    }

    function _deposit(address account, uint256 units) internal override {
        plain.mint(address(this), units * unit);
        plain.approve(address(vault), units * unit);
        vault.deposit(account, units * unit);
    }

    function _fill(uint256 count) private {
        for (uint256 i; i < count; ++i) {
            _deposit(vm.addr(FIRST_KEY + i), 10e6);
        }
        for (uint256 done; done < count; done += 100) {
            vault.authorise(_authorisationsFrom(done, count - done > 100 ? 100 : count - done, 9e6));
        }
    }

    function _records(uint256 count, uint64 cumulative) private pure returns (bytes memory records) {
        records = new bytes(count * 28);
        for (uint256 i; i < count; ++i) {
            bytes32 word = bytes32(_record(vm.addr(FIRST_KEY + i), cumulative));
            // The four bytes behind a record are the next one's first, or padding.
            assembly ("memory-safe") {
                mstore(add(add(records, 32), mul(i, 28)), word)
            }
        }
    }

    function _authorisations(uint256 count, uint64 cap) private view returns (ICreditVault.SpendAuthorisation[] memory) {
        return _authorisationsFrom(0, count, cap);
    }

    function _authorisationsFrom(uint256 first, uint256 count, uint64 cap)
        private
        view
        returns (ICreditVault.SpendAuthorisation[] memory batch)
    {
        batch = new ICreditVault.SpendAuthorisation[](count);
        for (uint256 i; i < count; ++i) {
            uint256 key = FIRST_KEY + first + i;
            address account = vm.addr(key);
            bytes memory signature = _signature(key, _authorisationHash(account, cap, VALID_UNTIL));
            batch[i] = ICreditVault.SpendAuthorisation(account, cap, VALID_UNTIL, "session", signature);
        }
    }
}
