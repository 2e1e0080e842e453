/* The control plane's process: store, registry, API server, controllers and scheduler, wired. Parts reach the API through a client
 * without sockets, as the users that upstream's parts are.
 *
 * Order: the store is loaded, the bootstrap objects are made, the API listens, then controllers and scheduler start on its watches. */
#include <signal.h>
#include <stdio.h>

#include "apiserver/apiserver.h"
#include "client/client.h"
#include "cmd/cmd.h"
#include "cmd/snapshot.h"
#include "controllers/controllers.h"
#include "scheduler/scheduler.h"

#define N_LOOPS 2
#define STOP_MS 400 /* what is under way may take so long when the process is to end */

struct control_plane {
	struct options options;
	struct pki pki;
	struct loop *main, *loops[N_LOOPS];
	struct cmd_store store;
	struct registry *registry;
	struct tls_context *tls, *kubelet_tls;
	struct apiserver *apiserver;
	struct client *controller_client, *scheduler_client;
	struct informers *informers;
	struct controllers *controllers;
	struct scheduler *scheduler;
	/* of a store that others share */
	struct masters *masters;
	struct lease *lease;
	char *identity;
	_Atomic bool stopping, starting; /* starting: to lead */
	/* what blocks, and is not urgent */
	struct pool *background;
	struct timer *snapshots, *renewal, *join_line;
	uint64_t renewal_ms,
		join_line_ms; /* from now until they are due; written in the background before the timer is armed */
};

/* Makes both TLS contexts, or gives them new certificates. */
static int use_certificates(struct control_plane *cp, const struct pki *p, struct err *err)
{
	/* The CA goes with the chain: a machine that joins finds it there by its pin. */
	CLEAN_BUF struct buf chain = { 0 };
	struct tls_server_config server = { .key_pem = buf_str(&p->server_key),
		.client_ca_pem = buf_str(&p->ca_cert),
		.http2 = true };
	struct tls_client_config kubelet = { .ca_pem = buf_str(&p->ca_cert),
		.cert_pem = buf_str(&p->kubelet_client_cert),
		.key_pem = buf_str(&p->kubelet_client_key) };
	int r;

	buf_add_str(&chain, buf_str(&p->server_cert));
	buf_add_str(&chain, buf_str(&p->ca_cert));
	server.cert_pem = buf_str(&chain);
	r = cp->tls ? tls_server_update(cp->tls, &server, err)
		    : tls_server_new(&server, &cp->tls, err);
	if (r < 0)
		return r;
	return cp->kubelet_tls ? tls_client_update(cp->kubelet_tls, &kubelet, err)
			       : tls_client_new(&kubelet, &cp->kubelet_tls, err);
}

static int start_api(struct control_plane *cp, struct err *err)
{
	CLEAN_FREE char *issuer =
		xasprintf("https://kubernetes.default.svc.%s", cp->options.cluster_domain);
	struct registry_config rc = { .store = cp->store.store,
		.clock = &clock_real,
		.service_cidr = cp->options.service_cidr,
		.node_port_first = 30000,
		.node_port_last = 32767,
		.api_port = cp->options.listen_port };
	int r = registry_new(&rc, &cp->registry, err);

	if (r < 0)
		return r;
	struct apiserver_config ac = { .loops = cp->loops,
		.n_loops = N_LOOPS,
		.address = cp->options.listen_host,
		.port = cp->options.listen_port,
		.listen_fd = handover_fd("api"),
		.tls = cp->tls,
		.registry = cp->registry,
		.service_account_key = buf_str(&cp->pki.service_account_key),
		.issuer = issuer,
		.ca_pem = buf_str(&cp->pki.ca_cert),
		.kubelet_tls = cp->kubelet_tls,
		.git_version = SKIFF_VERSION "+skiff" };

	r = apiserver_new(&ac, &cp->apiserver, err);
	if (r == 0)
		r = registry_bootstrap(cp->registry, err);
	return r < 0 ? r : apiserver_start(cp->apiserver, err);
}

/* A client in this process, as the given user. */
static struct client *local_client(
	struct control_plane *cp, int loop, const char *user, const char *group, const char *agent)
{
	struct http_handler handler = apiserver_handler(cp->apiserver);
	struct tls_identity who = { .common_name = str_of(user) };
	struct client_config cc = { .user_agent = agent };

	if (group) {
		who.organizations[0] = str_of(group);
		who.n_organizations = 1;
	}
	if (http_client_new_local(cp->loops[loop], &handler, &who, &cc.http) < 0)
		abort();
	return client_new(&cc);
}

static int start_controllers(struct control_plane *cp, struct err *err)
{
	struct controllers_config cc = { .clock = &clock_real,
		.ca_pem = buf_str(&cp->pki.ca_cert),
		.signing_ca_cert_pem = buf_str(&cp->pki.ca_cert),
		.signing_ca_key_pem = buf_str(&cp->pki.ca_key),
		.certificate_life_s = cp->options.certificate_life,
		.cluster_cidr = cp->options.pod_cidr,
		.node_monitor_grace_s = cp->options.node_monitor_grace,
		.node_load_balancers = !strcmp(cp->options.service_load_balancer, "nodes"),
		.own_node = cp->options.no_agent ? NULL : cp->options.node_name };
	struct scheduler_config sc = { .clock = &clock_real };
	int r;

	cp->informers = informers_new(cp->controller_client);
	cc.client = cp->controller_client;
	cc.informers = sc.informers = cp->informers;
	sc.client = cp->scheduler_client;
	r = controllers_new(&cc, &cp->controllers, err);
	if (r == 0)
		r = scheduler_new(&sc, &cp->scheduler, err);
	if (r == 0)
		r = informers_start(cp->informers, err);
	if (r == 0)
		r = controllers_start(cp->controllers, err);
	if (r == 0)
		r = scheduler_start(cp->scheduler, err);
	return r;
}

static void stop_controllers(struct control_plane *cp)
{
	if (cp->scheduler)
		scheduler_stop(TAKE(cp->scheduler));
	if (cp->controllers)
		controllers_stop(TAKE(cp->controllers));
}

/* ---- one of several leads ---- */

static void lead(void *arg)
{
	struct control_plane *cp = arg;
	struct err err = { 0 };

	cp->starting = true;
	int r = start_controllers(cp, &err);

	cp->starting = false;
	if (r == 0 || cp->stopping)
		return;
	log_error("control-plane",
		"cannot start the controllers: %s. This process ends, so that another can lead",
		err.text);
	_exit(1);
}

static void lead_no_more(void *arg)
{
	struct control_plane *cp = arg;

	if (cp->stopping) {
		stop_controllers(cp);
		return;
	}
	/* Another may lead from now on: nothing of ours may go on, not even a call that is on its way. */
	log_error(
		"control-plane", "this server leads no more, so its process ends and starts anew");
	_exit(1);
}

static int start_shared(struct control_plane *cp, struct err *err)
{
	struct lease_config lc = { .client = cp->controller_client,
		.ns = "kube-system",
		.name = "skiff-leader",
		.on_started = lead,
		.on_stopped = lead_no_more,
		.arg = cp };
	int port = apiserver_port(cp->apiserver);
	int r = masters_start(
		cp->controller_client, cp->options.advertise, port, &cp->masters, err);

	cp->identity = xasprintf("%s_%s:%d", cp->options.node_name, cp->options.advertise, port);
	lc.identity = cp->identity;
	return r < 0 ? r : lease_start(&lc, &cp->lease, err);
}

/* Controllers and scheduler: here, or where the lease is. */
static int start_rest(struct control_plane *cp, struct err *err)
{
	cp->controller_client = local_client(cp, 0, "system:kube-controller-manager",
		"system:masters", "skiff/" SKIFF_VERSION " controller-manager");
	cp->scheduler_client = local_client(cp, 1 % N_LOOPS, "system:kube-scheduler",
		"system:authenticated", "skiff/" SKIFF_VERSION " scheduler");
	if (store_is_shared(cp->store.store))
		return start_shared(cp, err);
	int r = start_controllers(cp, err);

	return r < 0 ? r
		     : controllers_publish_apiservers(cp->controller_client, &cp->options.advertise,
			       1, apiserver_port(cp->apiserver), err);
}

/* ---- snapshots on schedule: on a thread, since they block ---- */

static void take_snapshot(void *arg)
{
	struct control_plane *cp = arg;
	struct err err = { 0 };

	if (snapshot_rotate(cp->store.store, cp->options.data_dir, &err) < 0)
		log_error("control-plane", "the scheduled snapshot failed: %s", err.text);
	else
		log_info("control-plane", "a snapshot was saved under %s/snapshots",
			cp->options.data_dir);
}

static void snapshot_due(void *arg)
{
	struct control_plane *cp = arg;

	pool_submit(cp->background, take_snapshot, cp);
}

static int schedule_snapshots(struct control_plane *cp, struct err *err)
{
	int64_t ns;

	if (duration_parse(str_of(cp->options.snapshot_every), &ns) < 0 || ns < 0)
		return err_set(err, -EINVAL,
			"--snapshot-every %s: expected a duration, as in 12h (0s: never)",
			cp->options.snapshot_every);
	if (!ns)
		return 0;
	cp->snapshots = timer_new(cp->main, snapshot_due, cp);
	timer_start(cp->snapshots, (uint64_t)ns / 1000000, (uint64_t)ns / 1000000);
	return 0;
}

/* ---- certificates, renewed with the CA's key ---- */

#define LOOK_MS (3600 * 1000ULL) /* at the latest: the clock may be moved */
#define AGAIN_MS 30000
#define AGAIN_SOON_MS 1000

static void arm_renewal(void *arg)
{
	struct control_plane *cp = arg;

	timer_start(cp->renewal, MIN(MAX(cp->renewal_ms, (uint64_t)AGAIN_SOON_MS), LOOK_MS), 0);
}

static uint64_t certificates_due_ms(const struct pki *p)
{
	return MIN(pki_renewal_due_ms(buf_str(&p->server_cert)),
		pki_renewal_due_ms(buf_str(&p->kubelet_client_cert)));
}

static void renew_certificates(void *arg)
{
	struct control_plane *cp = arg;
	struct pki fresh = { 0 };
	struct err err = { 0 };
	int r = pki_prepare(&cp->options, (uid_t)-1, (gid_t)-1, &fresh, &err);

	if (r == 0)
		r = use_certificates(cp, &fresh, &err);
	if (r == 0)
		log_info("control-plane", "the API server's certificates were renewed");
	else
		log_error("control-plane", "the API server's certificates are not renewed: %s",
			err.text);
	cp->renewal_ms = r == 0 ? certificates_due_ms(&fresh) : AGAIN_MS;
	pki_deinit(&fresh);
	loop_post(cp->main, arm_renewal, cp);
}

/* What is on disk tells: it is what renewal writes. */
static void renewal_due(void *arg)
{
	struct control_plane *cp = arg;
	struct pki now = { 0 };
	struct err err;

	cp->renewal_ms = pki_load(&cp->options, &now, &err) == 0 ? certificates_due_ms(&now) : 0;
	pki_deinit(&now);
	if (cp->renewal_ms)
		arm_renewal(cp);
	else
		pool_submit(cp->background, renew_certificates, cp);
}

/* ---- the line with which machines join ---- */

static void arm_join_line(void *arg)
{
	struct control_plane *cp = arg;

	timer_start(cp->join_line, cp->join_line_ms, 0);
}

static void tell_join_line(void *arg)
{
	struct control_plane *cp = arg;
	CLEAN_BUF struct buf pin = { 0 };
	char token[TOKEN_TEXT];
	struct err err = { 0 };
	int64_t left_s = 0;
	int r = cert_pin(buf_str(&cp->pki.ca_cert), &pin, &err);

	if (r == 0)
		r = token_standing(cp->controller_client, token, &left_s, &err);
	if (r == 0)
		log_info("control-plane",
			"machines join with: skiff agent --server https://%s:%d --token %s:" STR_FMT,
			cp->options.advertise, apiserver_port(cp->apiserver), token,
			STR_ARG(buf_str(&pin)));
	else
		log_warn("control-plane", "no join token yet: %s; `skiff token create` makes one",
			err.text);
	cp->join_line_ms = r == 0 ? (uint64_t)left_s * 1000 + AGAIN_SOON_MS : AGAIN_MS;
	loop_post(cp->main, arm_join_line, cp);
}

static void join_line_due(void *arg)
{
	struct control_plane *cp = arg;

	pool_submit(cp->background, tell_join_line, cp);
}

static int start_background(struct control_plane *cp, struct err *err)
{
	cp->background = pool_new("background", 1);
	cp->renewal = timer_new(cp->main, renewal_due, cp);
	cp->join_line = timer_new(cp->main, join_line_due, cp);
	timer_start(cp->renewal, 0, 0);
	timer_start(cp->join_line, 0, 0);
	return schedule_snapshots(cp, err);
}

static void stop(void *arg)
{
	struct control_plane *cp = arg;

	loop_stop(cp->main);
}

/* Backwards through what was started; each part takes NULL. */
static void deinit(struct control_plane *cp)
{
	cp->stopping = true;
	store_hurry(cp->store.store, STOP_MS);
	if (cp->background)
		pool_free(cp->background); /* a snapshot that is being written is finished */
	masters_stop(cp->masters);
	/* One that has just come to lead waits for its caches, which fill no more. Its lease runs out by itself. */
	if (cp->starting)
		_exit(0);
	lease_stop(cp->lease);
	stop_controllers(cp);
	informers_free(cp->informers); /* their watches end before what serves them does */
	if (cp->apiserver)
		apiserver_stop(cp->apiserver);
	/* What clients in this process had open ends on the loops, a moment after they let go. */
	for (size_t i = 0; i < N_LOOPS; i++) {
		if (cp->loops[i]) {
			loop_stop(cp->loops[i]);
			loop_join(cp->loops[i]);
		}
	}
	cmd_store_close(&cp->store);
}

/* Clients need not wait with us: there are other servers. Starting to serve opens the door again. */
static void refuse_meanwhile(void)
{
	int fd = handover_fd("api");

	if (fd > 0)
		http_refuse(fd);
}

static int run(struct control_plane *cp, struct err *err)
{
	struct signal_watch *term, *interrupt;
	uint64_t began = mono_now_ns();
	int r = pki_load(&cp->options, &cp->pki, err);

	if (r == 0)
		r = loop_new("main", &cp->main, err);
	for (int i = 0; r == 0 && i < N_LOOPS; i++) {
		r = loop_new("api", &cp->loops[i], err);
		if (r == 0)
			r = loop_start(cp->loops[i], err);
	}
	cp->store.on_wait = refuse_meanwhile;
	if (r == 0)
		r = cmd_store_open(&cp->options, &cp->store, err);
	/* Up to here a signal ends the process as it is: opening may take long. */
	if (r == 0)
		r = signal_watch_new(cp->main, SIGTERM, stop, cp, &term, err);
	if (r == 0)
		r = signal_watch_new(cp->main, SIGINT, stop, cp, &interrupt, err);
	if (r == 0)
		r = use_certificates(cp, &cp->pki, err);
	if (r == 0)
		r = start_api(cp, err);
	if (r < 0)
		return r;
	log_info("control-plane", "the API is served on %s:%d after %llu ms",
		cp->options.listen_host, apiserver_port(cp->apiserver),
		(unsigned long long)(mono_now_ns() - began) / 1000000);
	r = start_rest(cp, err);
	if (r < 0)
		return r;
	r = start_background(cp, err);
	if (r < 0)
		return r;
	memory_trim_start(cp->main);
	loop_run(cp->main);
	log_info("control-plane", "stopping");
	return 0;
}

int cmd_control_plane(int argc, char **argv)
{
	struct control_plane cp = { 0 };
	struct err err = { 0 };
	int r = options_parse(&cp.options, OPT_SERVER, argc, argv);

	if (r)
		return r > 0 ? 0 : 2;
	signal(SIGPIPE, SIG_IGN);
	memory_setup();
	r = options_complete(&cp.options, &err);
	if (r == 0)
		r = run(&cp, &err);
	deinit(&cp);
	/* What the operator must mend fails the same way again; anything else is worth another try. */
	if (r == -EADDRINUSE || r == -EBADMSG || r == -EPROTO || r == -ENOENT || r == -EINVAL ||
		r == -EADDRNOTAVAIL || r == -EACCES)
		return cmd_fail("server", &err, EXIT_FINAL);
	return r < 0 ? cmd_fail("server", &err, 1) : 0;
}
