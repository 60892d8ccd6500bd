# Opens COUNT sessions at PORT, the second half of them encrypted, and says what the process PID has in memory for each.
import resource, socket, ssl, sys, time

port, count, pid = map(int, sys.argv[1:])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
context = ssl._create_unverified_context()


def memory():
    # What sessions bring; how many processes share the program changes beside them.
    with open(f'/proc/{pid}/smaps_rollup') as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith('Pss_Anon:'))


def settled():
    """Threads that wait for more work, and what they had, are given back within some seconds."""
    seen = [memory()]
    while len(seen) < 14 and (len(seen) < 3 or seen[-1] < seen[-3]):
        time.sleep(1)
        seen.append(memory())
    return seen[-1]


def sessions(encrypted):
    began, opened = time.time(), []
    for number in range(1, count // 2 + 1):
        opened.append(socket.create_connection(('127.0.0.1', port)))
        if number % 100 == 0 or number == count // 2:
            for one in opened[(number - 1) // 100 * 100:]:
                assert one.recv(200).startswith(b'220 ')
    print(f'{count // 2 / (time.time() - began):.0f} sessions/s begun')
    for number, one in enumerate(opened):
        one.sendall(b'EHLO client.example\r\n')
        assert one.recv(1000).startswith(b'250-')
        if encrypted:
            one.sendall(b'STARTTLS\r\n')
            assert one.recv(100).startswith(b'220 ')
            one = opened[number] = context.wrap_socket(one)
            one.sendall(b'EHLO client.example\r\n')
            assert one.recv(1000).startswith(b'250-')
    return opened


base = settled()
plain = sessions(False)
with_plain = settled()
encrypted = sessions(True)
with_both = settled()
print(f'KiB for each plain session: {(with_plain - base) / (count // 2):.1f}')
print(f'KiB for each TLS session: {(with_both - with_plain) / (count // 2):.1f}')
