/* A client that loads an API server: N connections over TLS with keep-alive, one request at a time on each, until --requests are done
 * or --seconds have passed.
 *
 *   bench-load --address 127.0.0.1:6443 --ca FILE --cert FILE --key FILE [--connections N] [--requests N] [--seconds N]
 *              [--method POST --body FILE] [--accept TYPE] PATH
 *
 * "%d" in the body, and in the path, stands for the number of the request. Prints one line of JSON: requests answered 2xx, others, seconds, requests per
 * second, and latency at 50 and 99 percent in microseconds. Exit 1: an answer was not 2xx, or a connection broke. */
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#define ANSWER_MAX (1 << 20)
#define BODY_MAX (1 << 16)

static struct {
	const char *address, *ca, *cert, *key, *method, *accept, *body_file, *path;
	int connections, seconds;
	long requests;
} options = { .method = "GET",
	.accept = "application/json",
	.connections = 1,
	.seconds = 60,
	.requests = 10000 };

static SSL_CTX *context;
static char body[BODY_MAX];
static atomic_long next_number, n_good, n_bad;
static unsigned *latency_us; /* by number of the request */
static double deadline;

static void die(const char *what)
{
	fprintf(stderr, "bench-load: %s\n", what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static SSL *connect_tls(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	char host[64];
	int port, one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sscanf(options.address, "%63[0-9.]:%d", host, &port) != 2 ||
		inet_pton(AF_INET, host, &to.sin_addr) != 1)
		die("--address is not IPV4:PORT");
	to.sin_port = htons((uint16_t)port);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("cannot connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	SSL *ssl = SSL_new(context);

	SSL_set_fd(ssl, fd);
	if (SSL_connect(ssl) != 1)
		die("TLS handshake failed");
	return ssl;
}

/* Whether the chunks from `body` on are all there. */
static bool chunks_are_whole(const char *at, const char *end)
{
	while (at < end) {
		char *after;
		unsigned long n = strtoul(at, &after, 16);

		if (after == at || after + 2 > end)
			return false;
		at = after + 2 + n + 2;
		if (n == 0)
			return at <= end;
	}
	return false;
}

/* Reads one answer; its status, or -1. */
static int read_answer(SSL *ssl, char *space)
{
	size_t len = 0, want = 0, chunked = 0; /* chunked: where the chunks begin */

	while (chunked ? !chunks_are_whole(space + chunked, space + len) : !want || len < want) {
		int n = len < ANSWER_MAX ? SSL_read(ssl, space + len, (int)(ANSWER_MAX - len)) : 0;

		if (n <= 0)
			return -1;
		len += (size_t)n;
		space[len] = 0;
		char *end = want || chunked ? NULL : strstr(space, "\r\n\r\n"), *length, *encoding;

		if (!end)
			continue;
		length = strcasestr(space, "\r\ncontent-length:");
		encoding = strcasestr(space, "\r\ntransfer-encoding: chunked");
		if (encoding && encoding < end) {
			chunked = (size_t)(end + 4 - space);
			continue;
		}
		if (!length || length > end)
			return -1;
		want = (size_t)(end + 4 - space) + strtoul(length + 17, NULL, 10);
	}
	return atoi(space + 9);
}

static int write_request(SSL *ssl, long number, char *space, char *text)
{
	int text_len = 0;

	if (options.body_file) {
		char *mark = strstr(body, "%d");

		text_len = mark
			? sprintf(text, "%.*s%ld%s", (int)(mark - body), body, number, mark + 2)
			: sprintf(text, "%s", body);
	}
	const char *mark = strstr(options.path, "%d");
	int len = mark ? sprintf(space, "%s %.*s%ld%s", options.method, (int)(mark - options.path),
				 options.path, number, mark + 2)
		       : sprintf(space, "%s %s", options.method, options.path);

	len += sprintf(space + len,
		" HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench-load\r\nAccept: %s\r\n",
		options.address, options.accept);
	if (text_len)
		len += sprintf(space + len, "Content-Type: %s\r\nContent-Length: %d\r\n",
			strcmp(options.method, "PATCH") ? "application/json"
							: "application/merge-patch+json",
			text_len);
	len += sprintf(space + len, "\r\n");
	memcpy(space + len, text, (size_t)text_len);
	return SSL_write(ssl, space, len + text_len);
}

static void *connection(void *arg)
{
	SSL *ssl = connect_tls();
	char *space = malloc(ANSWER_MAX + BODY_MAX), *text = malloc(BODY_MAX + 64);
	long number;

	while ((number = atomic_fetch_add(&next_number, 1)) < options.requests &&
		now() < deadline) {
		double begin = now();
		int status =
			write_request(ssl, number, space, text) > 0 ? read_answer(ssl, space) : -1;

		latency_us[number] = (unsigned)((now() - begin) * 1e6);
		if (status / 100 == 2) {
			n_good++;
		} else if (n_bad++ == 0) {
			fprintf(stderr, "bench-load: answer %d: %.300s\n", status,
				status > 0 ? space : "");
		}
		if (status < 0)
			break;
	}
	SSL_shutdown(ssl);
	free(space);
	free(text);
	return NULL;
}

static void setup(int argc, char **argv)
{
	static const struct option rows[] = { { "address", 1, NULL, 'a' }, { "ca", 1, NULL, 'A' },
		{ "cert", 1, NULL, 'c' }, { "key", 1, NULL, 'k' }, { "connections", 1, NULL, 'n' },
		{ "requests", 1, NULL, 'r' }, { "seconds", 1, NULL, 's' },
		{ "method", 1, NULL, 'm' }, { "body", 1, NULL, 'b' }, { "accept", 1, NULL, 'H' },
		{ 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "", rows, NULL)) != -1) {
		switch (c) {
		case 'a':
			options.address = optarg;
			break;
		case 'A':
			options.ca = optarg;
			break;
		case 'c':
			options.cert = optarg;
			break;
		case 'k':
			options.key = optarg;
			break;
		case 'n':
			options.connections = atoi(optarg);
			break;
		case 'r':
			options.requests = atol(optarg);
			break;
		case 's':
			options.seconds = atoi(optarg);
			break;
		case 'm':
			options.method = optarg;
			break;
		case 'H':
			options.accept = optarg;
			break;
		case 'b':
			options.body_file = optarg;
			break;
		default:
			exit(2);
		}
	}
	options.path = argv[optind];
	if (!options.address || !options.ca || !options.cert || !options.key || !options.path ||
		options.connections < 1 || options.connections > 1000 || options.requests < 1 ||
		options.requests > 10000000)
		die("usage: bench-load --address IP:PORT --ca FILE --cert FILE --key FILE [--connections N] [--requests N] [--seconds N] "
		    "[--method M --body FILE] [--accept TYPE] PATH");
}

static void read_body(void)
{
	FILE *f = options.body_file ? fopen(options.body_file, "r") : NULL;

	if (options.body_file && (!f || fread(body, 1, BODY_MAX - 64, f) == 0))
		die("cannot read the body");
	if (f)
		fclose(f);
}

static int by_value(const void *a, const void *b)
{
	return (*(const unsigned *)a > *(const unsigned *)b) -
		(*(const unsigned *)a < *(const unsigned *)b);
}

int main(int argc, char **argv)
{
	pthread_t threads[1000];
	double begin, took;

	setup(argc, argv);
	read_body();
	context = SSL_CTX_new(TLS_client_method());
	if (SSL_CTX_load_verify_locations(context, options.ca, NULL) != 1 ||
		SSL_CTX_use_certificate_file(context, options.cert, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_use_PrivateKey_file(context, options.key, SSL_FILETYPE_PEM) != 1)
		die("cannot load --ca, --cert or --key");
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	latency_us = calloc((size_t)options.requests + 1, sizeof(*latency_us));
	begin = now();
	deadline = begin + options.seconds;
	for (int i = 0; i < options.connections; i++)
		if (pthread_create(&threads[i], NULL, connection, NULL))
			die("cannot start a thread");
	for (int i = 0; i < options.connections; i++)
		pthread_join(threads[i], NULL);
	took = now() - begin;
	long n = n_good + n_bad;

	qsort(latency_us, (size_t)n, sizeof(*latency_us), by_value);
	printf("{\"good\": %ld, \"bad\": %ld, \"seconds\": %.3f, \"per_second\": %.0f, \"p50_us\": %u, \"p99_us\": %u}\n",
		(long)n_good, (long)n_bad, took, (double)n_good / took, n ? latency_us[n / 2] : 0,
		n ? latency_us[n * 99 / 100] : 0);
	return n_bad || !n_good ? 1 : 0;
}
