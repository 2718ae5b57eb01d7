# docker build -f docker/training.Dockerfile -t classification .
# docker run --rm -it --shm-size 2g --user "$(id -u):$(id -g)" -v "$PWD:/work" classification \
#   python /opt/classification/tools/instantiate_template.py \
#   /opt/classification/model_templates/custom-classification/efficientnet_lite0/template.yaml my_model
# For GPUs: --build-arg INDEX_URL=https://download.pytorch.org/whl/cu130, and docker run --gpus all.
FROM python:3.11-slim
ARG INDEX_URL=https://download.pytorch.org/whl/cpu
WORKDIR /opt/classification
COPY . .
RUN ./init_venv.sh /opt/venv --index-url "$INDEX_URL" \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt --editable '.[faces,audit]' \
    && rm -rf /root/.cache
# Users of any number (--user) share this home.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp/home PYTHONUNBUFFERED=1
RUN useradd --create-home --home-dir /tmp/home --uid 1000 trainer && chmod 1777 /tmp/home
USER 1000
WORKDIR /work
CMD ["bash"]
