# The binaries on a CPU:
#   docker build -t alp_repro .
#   docker run --rm --user "$(id -u)" -v "$PWD:/work" alp_repro \
#     alp-audit --model=m.keras --data=d.npz --eps=8 --fail_below=30
FROM python:3.11-slim

WORKDIR /opt/alp_repro
COPY constraints.txt pyproject.toml setup.py README.md LICENSE ./
COPY alp_repro alp_repro
COPY experiments experiments
COPY flags flags
COPY data/mnist data/mnist
RUN pip install --no-cache-dir -c constraints.txt .

# Whoever it runs as, by --user, needs a home that can be written to.
ENV HOME=/tmp
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin alp
USER 1000
WORKDIR /work
CMD ["alp-audit", "--help"]
