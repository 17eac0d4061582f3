// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {AllotmentBounds} from "../src/AllotmentBounds.sol";
import {OperatorPayouts} from "../src/OperatorPayouts.sol";
import {Packages} from "../src/Packages.sol";
import {Treasury} from "../src/Treasury.sol";
import {IOperatorPayouts} from "../src/interfaces/IOperatorPayouts.sol";
import {IPackages} from "../src/interfaces/IPackages.sol";
import {ITreasury} from "../src/interfaces/ITreasury.sol";
import {Cheats} from "./support/Cheats.sol";
import {HostileToken} from "./support/HostileToken.sol";

/// @notice A treasury and a shop that pays into it
abstract contract TreasuryFixture is Cheats {
    uint256 internal constant START = 1_700_000_000;
    uint32 internal constant ROOT_DELAY = 1 hours;
    uint64 internal constant CEILING = 50e6;

    HostileToken internal token;
    AllotmentBounds internal bounds;
    Treasury internal treasury;
    OperatorPayouts internal payouts;
    Packages internal packages;
    address internal coordinator = address(0xC0);
    address internal settler = address(0x5E);
    address internal guardian = address(0x6A);
    address internal governor = address(0x60);
    address internal worker = address(0x3A);

    function _setUpTreasury() internal {
        vm.warp(START);
        token = new HostileToken(6);
        bounds = new AllotmentBounds(governor, 1e6, CEILING);
        treasury = new Treasury(
            IERC20(address(token)), bounds, Treasury.Roles(coordinator, settler, guardian, governor), ROOT_DELAY
        );
        payouts = treasury.payouts();
        packages = new Packages(IERC20(address(token)), address(treasury), coordinator);
    }

    function _open(uint64 day, uint64 pool) internal {
        vm.prank(settler);
        treasury.openDay(day, pool);
    }

    function _pay(uint64 day, uint64 units, bytes32 root, uint64 rootTotal) internal {
        uint64 epoch = treasury.lastEpoch() + 1;
        vm.prank(settler);
        treasury.pay(epoch, day, units, root, rootTotal, "commitment");
    }
}

contract TreasuryTest is TreasuryFixture {
    function setUp() public {
        _setUpTreasury();
        token.mint(address(treasury), 80e6);
    }

    function test_openDay_reservesAtMostCeilingAndWhatIsFree() public {
        vm.startPrank(settler);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.AboveCeiling.selector, CEILING + 1, CEILING));
        treasury.openDay(1, CEILING + 1);
        treasury.openDay(1, CEILING);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.NotCovered.selector, 30e6, 40e6));
        treasury.openDay(2, 40e6);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.WrongDay.selector, 1, 1));
        treasury.openDay(1, 1);
        treasury.openDay(2, 30e6);
        vm.stopPrank();
        vm.assertEq(treasury.free(), 0);
        vm.assertEq(treasury.reserved(), 80e6);
    }

    function test_pay_reachesWorkersByTheirOwnPot() public {
        _open(1, 10e6);
        bytes32 root = payouts.leafOf(worker, 4e6);
        _pay(1, 4e6, root, 4e6);
        vm.warp(START + ROOT_DELAY);
        payouts.claim(1, worker, 4e6, new bytes32[](0));
        vm.assertEq(token.balanceOf(worker), 4e6);
        vm.assertEq(treasury.dayOf(1).left, 6e6);
        vm.prank(settler);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.ReserveExceeded.selector, 1, 6e6, 7e6));
        treasury.pay(2, 1, 7e6, 0, 0, 0);
        vm.prank(settler);
        vm.expectRevert(abi.encodeWithSelector(IOperatorPayouts.OverCommitted.selector, 11e6, 10e6));
        treasury.pay(2, 1, 6e6, root, 11e6, 0);
        vm.prank(settler);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.WrongEpoch.selector, 2, 3));
        treasury.pay(3, 1, 1, 0, 0, 0);
        vm.prank(settler);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.DayNotOpen.selector, 9));
        treasury.pay(2, 9, 1, 0, 0, 0);
    }

    function test_closeDay_freesWhatIsLeftAfterTheDelay() public {
        _open(1, 10e6);
        _pay(1, 4e6, 0, 0);
        uint256 closableAt = START + treasury.CLOSING_DELAY();
        vm.expectRevert(abi.encodeWithSelector(ITreasury.NotClosable.selector, 1, closableAt));
        treasury.closeDay(1);
        vm.warp(closableAt);
        treasury.closeDay(1);
        vm.assertEq(treasury.free(), 76e6);
        vm.assertEq(treasury.reserved(), 0);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.DayNotOpen.selector, 2));
        treasury.closeDay(2);
    }

    function test_release_isTheGovernorsAndNeverTouchesAReserve() public {
        _open(1, 50e6);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.NotGovernor.selector, address(this), governor));
        treasury.release(worker, 1);
        vm.startPrank(governor);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.NotCovered.selector, 30e6, 30e6 + 1));
        treasury.release(worker, 30e6 + 1);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.BadRecipient.selector, address(0)));
        treasury.release(address(0), 1);
        treasury.release(worker, 30e6);
        vm.stopPrank();
        vm.assertEq(token.balanceOf(worker), 30e6);
    }

    function test_roles_areEachTheirOwn() public {
        vm.expectRevert(abi.encodeWithSelector(ITreasury.NotSettler.selector, address(this), settler));
        treasury.openDay(1, 1);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.NotSettler.selector, address(this), settler));
        treasury.pay(1, 1, 1, 0, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(ITreasury.NotCoordinator.selector, address(this), coordinator));
        treasury.setSettler(worker);
        vm.prank(coordinator);
        treasury.setSettler(worker);
        vm.prank(worker);
        treasury.openDay(1, 1);
    }

    function test_buy_paysTheTreasuryAndSaysWhatWasBought() public {
        vm.prank(coordinator);
        packages.list(7, IPackages.Package({price: 20e6, units: 25e6, validityS: 30 days}));
        token.mint(worker, 20e6);
        vm.startPrank(worker);
        token.approve(address(packages), 20e6);
        vm.expectRevert(abi.encodeWithSelector(IPackages.PriceAbove.selector, 7, 20e6, 19e6));
        packages.buy(7, address(0x77), 19e6);
        vm.expectEmit(address(packages));
        emit IPackages.Purchased(7, address(0x77), worker, 20e6, 25e6, uint64(START + 30 days));
        packages.buy(7, address(0x77), 20e6);
        vm.stopPrank();
        vm.assertEq(token.balanceOf(address(treasury)), 100e6);
        vm.assertEq(token.balanceOf(address(packages)), 0);
    }

    function test_buy_failsOffTheListForFeesAndToNobody() public {
        vm.expectRevert(abi.encodeWithSelector(IPackages.NotOnSale.selector, 7));
        packages.buy(7, worker, 1);
        IPackages.Package memory package = IPackages.Package({price: 100, units: 1, validityS: 1});
        vm.expectRevert(abi.encodeWithSelector(IPackages.NotPublisher.selector, address(this), coordinator));
        packages.list(7, package);
        vm.startPrank(coordinator);
        vm.expectRevert(abi.encodeWithSelector(IPackages.BadPackage.selector, 8));
        packages.list(8, IPackages.Package({price: 0, units: 1, validityS: 1}));
        packages.list(7, package);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(IPackages.ZeroAddress.selector));
        packages.buy(7, address(0), 100);
        token.mint(address(this), 100);
        token.approve(address(packages), 100);
        token.setFee(100);
        vm.expectRevert(abi.encodeWithSelector(IPackages.WrongAmountReceived.selector, 100, 99));
        packages.buy(7, worker, 100);
        token.setFee(0);
        vm.prank(coordinator);
        packages.list(7, IPackages.Package({price: 0, units: 0, validityS: 0}));
        vm.expectRevert(abi.encodeWithSelector(IPackages.NotOnSale.selector, 7));
        packages.buy(7, worker, 100);
    }
}

/// @notice Does at random what settler, governor, donors and workers can do
contract Household is TreasuryFixture {
    uint256 public donated;
    uint256 public released;
    uint256 public highestClaim;
    bool public claimsFell;
    uint64 private _earned;
    uint64 private _day;

    constructor() {
        _setUpTreasury();
    }

    function donate(uint64 units) external {
        units = uint64(bound(units, 1, 1e9));
        token.mint(address(treasury), units);
        donated += units;
    }

    function openDay(uint64 pool) external {
        _open(_day + 1, uint64(bound(pool, 0, CEILING)));
        ++_day;
    }

    function pay(uint64 day, uint64 units) external {
        units = uint64(bound(units, 0, 10e6));
        day = uint64(bound(day, 1, _day + 1));
        _pay(day, units, payouts.leafOf(worker, _earned + units), _earned + units);
        _earned += units;
    }

    function claim() external {
        vm.warp(block.timestamp + ROOT_DELAY);
        payouts.claim(treasury.lastEpoch(), worker, _earned, new bytes32[](0));
        if (payouts.claimedOf(worker) < highestClaim) claimsFell = true;
        highestClaim = payouts.claimedOf(worker);
    }

    function closeDay(uint64 day) external {
        vm.warp(block.timestamp + 1 days);
        treasury.closeDay(uint64(bound(day, 1, _day + 1)));
    }

    function release(uint64 units) external {
        units = uint64(bound(units, 1, 1e9));
        vm.prank(governor);
        treasury.release(address(0x77), units);
        released += units;
    }

    function books() external view returns (Treasury, OperatorPayouts, HostileToken, uint64) {
        return (treasury, payouts, token, _day);
    }
}

contract TreasuryInvariantTest is Cheats {
    Household private _household;

    function setUp() public {
        _household = new Household();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_household);
    }

    function invariant_openDaysAreCoveredAndEveryUnitIsAccountedFor() public view {
        (Treasury treasury, OperatorPayouts payouts, HostileToken token, uint64 day) = _household.books();
        uint256 left;
        for (uint64 i = 1; i <= day; ++i) {
            left += treasury.dayOf(i).left;
        }
        vm.assertEq(treasury.reserved(), left);
        uint256 held = token.balanceOf(address(treasury));
        vm.assertGe(held, left);
        vm.assertEq(token.balanceOf(address(payouts)), payouts.funded() - payouts.claimedTotal());
        vm.assertEq(held + payouts.funded() + _household.released(), _household.donated());
        vm.assertFalse(_household.claimsFell());
    }
}
