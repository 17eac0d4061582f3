//! Ways out against running jobs, against each other, and against a chain that drops them: money that is held stays, money
//! that left is gone from the books, and nothing is paid twice.

use contracts::mirror::Mirror;
use contracts::{EvmKey, Exit, SignedVoucher, WithdrawalVoucher, dev};
use journal::SubmitError;
use ledger::command::IssueVoucher;
use ledger::query::{self, VoucherState};
use protocol::id::{AccountId, EvmAddress, VoucherId};

use crate::books::Books;
use crate::world::EXIT_DELAY_S;

struct Customer<'a> {
    books: &'a Books,
    key: &'a EvmKey,
    account: AccountId,
}

async fn customer<'a>(books: &'a Books, mirror: &mut Mirror) -> Customer<'a> {
    let key = &books.world.user;
    let account = books.link(key, 90_000_000).await;
    books.world.fund(key, 5_000_000).await;
    books.catch_up(mirror).await;
    Customer { books, key, account }
}

impl Customer<'_> {
    /// What `POST /v1/withdrawals` does: the ledger reserves, then the settler signs.
    async fn voucher(&self, number: u8, units: u64) -> Result<(VoucherId, SignedVoucher), SubmitError> {
        let world = &self.books.world;
        let on_chain = world.deployment.account(self.key.address()).await.expect("account");
        let deadline_s = world.chain.head().await.expect("head").timestamp + 600;
        let voucher = VoucherId([number; 16]);
        let (vault, wallet) = (self.books.vault(), EvmAddress(self.key.address().0));
        let nonce = on_chain.withdrawal_nonce;
        let issue = IssueVoucher { voucher, account: self.account, vault, wallet, units, nonce, deadline_s };
        self.books.submit(issue).await?;
        let terms = WithdrawalVoucher {
            account: self.key.address(),
            units,
            nonce,
            deadline: u32::try_from(deadline_s).expect("before 2106"),
        };
        Ok((voucher, terms.sign(&world.settler, &world.deployment.domain())))
    }

    async fn use_voucher(&self, signed: &SignedVoucher) -> Result<contracts::Mined, contracts::ChainError> {
        self.books.world.deployment.withdraw(self.key, self.key.address(), signed).await
    }

    async fn state(&self, voucher: VoucherId) -> VoucherState {
        let read = self.books.client.read(move |state| query::voucher(state, voucher));
        read.await.expect("read").expect("a voucher").state
    }

    async fn exit(&self) -> Exit {
        let world = &self.books.world;
        Exit::open(world.chain.clone(), world.deployment.manifest().vault).await.expect("a vault")
    }
}

fn refusal(refused: Result<impl Sized, SubmitError>) -> &'static str {
    match refused {
        Err(SubmitError::Refused { refusal, .. }) => refusal.name(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was taken"),
    }
}

#[tokio::test]
async fn a_withdrawal_cannot_take_what_a_running_job_holds() {
    let books = Books::open(1).await;
    let mut mirror = books.mirror(1);
    let customer = customer(&books, &mut mirror).await;
    let job = books.admit(customer.account, 1, 3_000).await.expect("held");
    assert_eq!(refusal(customer.voucher(1, 2_000_001).await), "more_than_withdrawable");
    let (voucher, signed) = customer.voucher(2, 2_000_000).await.expect("the rest");
    assert_eq!(refusal(books.admit(customer.account, 2, 2).await), "insufficient_credit");
    customer.use_voucher(&signed).await.expect("paid while the job runs");
    books.capture(job, 3_000).await;
    books.catch_up(&mut mirror).await;
    assert_eq!(customer.state(voucher).await, VoucherState::Redeemed);
    let settled = books.settlement().await.settle_once().await.expect("settled").expect("due");
    assert_eq!(settled.1.total, 3_000_000, "what the job held was there to be charged");
    books.catch_up(&mut mirror).await;
    books.assert_no_drift().await;
    assert!(customer.use_voucher(&signed).await.is_err(), "once");
}

#[tokio::test]
async fn a_reservation_ends_only_when_a_deep_block_is_past_the_deadline() {
    let books = Books::open(2).await;
    let mut mirror = books.mirror(2);
    let customer = customer(&books, &mut mirror).await;
    let (voucher, signed) = customer.voucher(1, 4_000_000).await.expect("reserved");
    dev::increase_time(&books.world.chain, 601).await.expect("past the deadline");
    mirror.look().await.expect("the chain answers");
    assert_eq!(customer.state(voucher).await, VoucherState::Open, "that block is not deep enough");
    assert_eq!(books.available(customer.account).await, 1_000_000);
    assert!(customer.use_voucher(&signed).await.is_err(), "the vault takes it no more");
    books.catch_up(&mut mirror).await;
    assert_eq!(customer.state(voucher).await, VoucherState::Lapsed);
    assert_eq!(books.available(customer.account).await, 5_000_000);
    books.assert_no_drift().await;
}

#[tokio::test]
async fn a_voucher_and_an_exit_pay_everything_once_in_either_order() {
    for voucher_first in [true, false] {
        let books = Books::open(1).await;
        let mut mirror = books.mirror(1);
        let customer = customer(&books, &mut mirror).await;
        let (voucher, signed) = customer.voucher(1, 2_000_000).await.expect("reserved");
        let exit = customer.exit().await;
        exit.request(customer.key).await.expect("requested");
        mirror.look().await.expect("the chain answers");
        assert_eq!(
            refusal(customer.voucher(2, 1).await),
            "exit_pending",
            "at first sight, without confirmations"
        );
        assert_eq!(books.available(customer.account).await, 0);
        if voucher_first {
            customer.use_voucher(&signed).await.expect("still good");
        }
        dev::increase_time(&books.world.chain, EXIT_DELAY_S.into()).await.expect("later");
        exit.finalize(customer.key, customer.key.address()).await.expect("all out");
        assert!(customer.use_voucher(&signed).await.is_err(), "died with the exit, or used");
        books.catch_up(&mut mirror).await;
        let expected = if voucher_first { VoucherState::Redeemed } else { VoucherState::Lapsed };
        assert_eq!(customer.state(voucher).await, expected);
        let held = books.world.deployment.token_balance(customer.key.address()).await.expect("balance");
        assert_eq!(held, 5_000_000 * 1_000_000_000_000);
        assert_eq!((books.available(customer.account).await, books.owed(customer.account).await), (0, 0));
        books.assert_no_drift().await;
    }
}

#[tokio::test]
async fn a_user_that_exits_while_fifty_streams_run_pays_for_what_it_got() {
    let books = Books::open(1).await;
    let mut mirror = books.mirror(1);
    let customer = customer(&books, &mut mirror).await;
    let mut running = Vec::new();
    for number in 0..50 {
        running.push(books.admit(customer.account, number, 80).await.expect("held"));
    }
    customer.exit().await.request(customer.key).await.expect("requested");
    mirror.look().await.expect("the chain answers");
    assert_eq!(refusal(books.admit(customer.account, 99, 2).await), "insufficient_credit", "nothing new");
    for job in running {
        books.capture(job, 80).await;
    }
    let settled = books.settlement().await.settle_once().await.expect("settled").expect("due");
    assert_eq!(settled.1.total, 50 * 80_000, "the vault still pays what was served");
    dev::increase_time(&books.world.chain, EXIT_DELAY_S.into()).await.expect("later");
    customer.exit().await.finalize(customer.key, customer.key.address()).await.expect("the rest");
    books.catch_up(&mut mirror).await;
    let held = books.world.deployment.token_balance(customer.key.address()).await.expect("balance");
    assert_eq!(held, 1_000_000 * 1_000_000_000_000);
    assert_eq!(books.owed(customer.account).await, 0);
    books.assert_no_drift().await;
}

#[tokio::test]
async fn what_was_served_and_not_settled_before_an_exit_is_owed_by_its_account() {
    let books = Books::open(1).await;
    let mut mirror = books.mirror(1);
    let customer = customer(&books, &mut mirror).await;
    books.serve(customer.account, 1, 3_000).await;
    let exit = customer.exit().await;
    exit.request(customer.key).await.expect("requested");
    dev::increase_time(&books.world.chain, EXIT_DELAY_S.into()).await.expect("nobody settles in time");
    exit.finalize(customer.key, customer.key.address()).await.expect("everything is out");
    books.catch_up(&mut mirror).await;
    assert_eq!(books.owed(customer.account).await, 3_000_000, "the shortfall, named");
    books.assert_no_drift().await;
    assert_eq!(books.settlement().await.settle_once().await.expect("nothing to charge"), None);
}
